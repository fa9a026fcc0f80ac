//! balena-migrate: moves a running Linux device to balenaOS, over the disk it boots from.
//!
//! The job in one line: config → host snapshot → checks → plan → confirm → prepare → arm → reboot
//! ‖ initramfs: restore boot configuration → find disk → secure payload → let go of the disk ‖
//! point of no return: flash → files into the new system → reboot.
//!
//! Directions: [`cli`] → {[`plan`], [`engine`]}; [`plan`] → {[`check`], [`backup`], [`boot`],
//! [`initramfs`], [`network`], [`connect`]} → {[`handover`], [`step`]} →
//! {[`config`], [`host`], [`device`]};
//! {[`engine`], [`stage2`], [`host::collect`]} → [`sys`]. [`stage2`] never sees [`config`], [`host`] or
//! [`plan`]: it knows the [`handover`] and what it measures. [`extract`] runs anywhere: it sees the
//! [`payload`], the files of [`config`], and [`sys`]. `fleet` is the operator's side, `migdb`: it sees
//! [`sys`], [`secret`], [`run_state`] and parsers, and nothing sees it.

pub mod backup;
pub mod bad_blocks;
pub mod boot;
pub mod check;
pub mod checksums;
pub mod cli;
pub mod config;
pub mod connect;
pub mod device;
pub mod device_node;
pub mod efi;
pub mod endpoint;
pub mod engine;
pub mod ext_space;
pub mod extract;
pub mod finding;
pub mod fingerprint;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod growth;
pub mod grub_platform;
pub mod handover;
pub mod host;
pub mod initramfs;
pub mod kernel_args;
pub mod material;
pub mod meminfo;
pub mod network;
pub mod new_grub;
pub mod os_release;
pub mod packer;
pub mod partition_table;
pub mod payload;
pub mod place;
pub mod plan;
pub mod raspberry_pi;
pub mod report;
pub mod resume;
pub mod run_state;
pub mod secret;
pub mod shown;
pub mod stage2;
pub mod step;
pub mod superblock;
pub mod sys;
pub mod vpd;
