//! `migdb`: the store of units, its command line, and workers that die.

mod api;
mod balena;
mod bed;
mod cli;
mod cluster;
mod fleet;
mod killed_workers;
mod kills;
mod moving;
mod postgres;
mod pretend;
mod rest;
mod sdk;
mod seen;
mod ssh;
mod sshd;
mod store;
mod stores;
mod tls;
mod work;
