//! What the world does to a gateway, and what promises must survive it.

mod away;
mod hangups;
mod process;
mod pushes;
mod races;
mod restarts;
mod signals;
