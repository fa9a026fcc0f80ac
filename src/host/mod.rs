//! The host snapshot.
pub mod collect;
