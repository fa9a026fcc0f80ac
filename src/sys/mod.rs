//! The only place with effects: files, commands, kernel calls, mounts.

pub mod block;
pub mod child;
pub mod command;
pub mod console;
pub mod efivars;
pub mod ext4;
pub mod extents;
pub mod files;
pub mod holders;
pub mod identity;
pub mod interrupt;
pub mod kernel_log;
pub mod mapper;
pub mod module;
pub mod mount;
pub mod net;
pub mod own_root;
pub mod partition;
pub mod power;
pub mod settle;
pub mod speed;
pub mod surface;
pub mod tree;

pub use files::Sys;
