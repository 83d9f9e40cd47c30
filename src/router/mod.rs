//! The router for one machine.
