//! The only place with effects: files, commands, kernel calls, mounts.

pub mod block;
#[cfg(feature = "fleet")]
pub mod call;
pub mod child;
pub mod command;
pub mod console;
pub mod efivars;
pub mod ext4;
pub mod extents;
pub mod files;
pub mod holders;
#[cfg(feature = "fleet")]
pub mod http;
pub mod identity;
pub mod interrupt;
pub mod kernel_log;
pub mod mapper;
pub mod module;
pub mod mount;
pub mod net;
pub mod own_root;
pub mod partition;
#[cfg(feature = "fleet")]
pub mod postgres;
pub mod power;
#[cfg(feature = "fleet")]
pub mod process;
pub mod put;
pub mod settle;
pub mod speed;
pub mod surface;
pub mod tree;
#[cfg(feature = "fleet")]
pub mod watch;

pub use files::Sys;
