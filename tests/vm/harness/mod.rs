//! The test bench: real virtual machines for the tests and the demo.
//!
//! A [`Machine`] is a computer that is switched off: disks, memory size, a name. Starting it gives a
//! [`Vm`]; cutting its power or waiting until it has switched itself off gives the [`Machine`] back,
//! whose disks can then be read from outside ([`Disk`]). What machines are made of is built once and
//! kept in the [`cache`]: the Debian [`guest`]s and the balenaOS-like [`osimage`].
//!
//! QEMU emulates the processor in software, so that no host needs more than its qemu package.
//! Everything here panics with a message for the person who reads the test's output: a bench that
//! cannot go on has nothing to return.

pub mod agent;
pub mod board;
pub mod cache;
pub mod clock;
pub mod console;
pub mod disk;
pub mod exe;
pub mod guest;
pub mod machine;
pub mod matrix;
pub mod medium;
pub mod migratecfg;
pub mod osimage;
pub mod outcome;
pub mod pc;
pub mod pi;
pub mod qmp;
mod quiet;
pub mod tool;
pub mod vm;
pub mod wire;
pub mod writelog;

pub use clock::Clock;
pub use disk::Disk;
pub use machine::Machine;
pub use migratecfg::Migratecfg;
pub use osimage::OsImage;
pub use vm::Vm;
