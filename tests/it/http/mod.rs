//! The interface, endpoint by endpoint.

mod ack;
