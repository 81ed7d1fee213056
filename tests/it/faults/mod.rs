//! What the world does to a gateway, and what promises must survive it.

mod away;
mod disk;
mod hangups;
mod load;
mod network;
mod once;
mod pushes;
mod races;
mod readonly;
mod restarts;
mod retried;
mod set_back;
mod signals;
mod steps;
