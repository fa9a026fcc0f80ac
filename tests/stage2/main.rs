//! Stage 2 on disks that are files: the outcome and the bytes, whatever the machine does.
//!
//! [`world`] makes a machine that stage 1 has prepared, [`machine`] plays its kernel.

mod after_first_write;
mod before_first_write;
mod beside;
mod boards;
mod efi;
mod filesystem;
mod flash;
mod machine;
mod places;
mod power;
mod power_cut;
mod road;
mod signs;
mod tail;
mod world;
