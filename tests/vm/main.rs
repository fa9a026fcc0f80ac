//! Tests on real virtual machines: a real Debian with real GRUB and kernel, real power cuts.
//!
//! Run them one at a time (`--test-threads=1`): a lock makes the others wait in any case.

mod harness;

mod bench;
mod campaign;
mod carried;
mod faults;
mod fleet;
mod hooks;
mod i686;
mod new_grub;
mod other_disk;
mod pi;
mod places;
mod scenarios;
mod x86;
