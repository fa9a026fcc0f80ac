//! What the firmware of a Raspberry Pi makes of the files on its boot partition. Pure.
//!
//! The firmware is closed; what is here follows its documentation
//! (<https://www.raspberrypi.com/documentation/computers/config_txt.html>). Where the outcome depends on what a
//! program can't know (a monitor, a pin), the answer says so, rather than guess.

pub mod board;
pub mod boot_files;
pub mod config_txt;
pub mod firmware_files;
