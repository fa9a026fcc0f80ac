//! tmp
/// .
pub struct Plan {
/// .
pub steps: Vec<crate::step::Step>,
/// .
pub armed: bool }
