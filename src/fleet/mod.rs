//! A fleet: many devices, migrated over ssh from the operator's machine. The program is `migdb`.
//!
//! A device is a [`unit::Unit`], a file of settings and history. Its [`store::State`] says where it
//! stands on its way; a [`store::Store`] keeps the units, and gives each to one worker at a time.
//! [`settings`] merges what options, unit, environment and `--cfg` file say. [`view`] and
//! [`stats`] report, [`serve`] on a web page.
//!
//! [`ssh`] reaches a device, [`facts`] is what it says of itself, [`transfer`] brings the folder
//! migratecfg ([`material`]) there.
//!
//! [`worker`] takes units through all of it: it asks the [`backend`] for their config.json and runs
//! balena-migrate there ([`device`]).
//!
//! Directions: [`cli`] → {[`worker`], [`serve`], [`view`], [`stats`], [`add`]} → {[`transfer`],
//! [`backend`], [`device`]} → {[`store`], [`ssh`]} → [`mod@unit`] → {[`settings`],
//! [`crate::config::shell`]}; all effects go through [`crate::sys`]. Nothing of the device's side sees
//! this module, and it is left out of the device's executable (the feature `fleet`).

pub mod add;
pub mod askpass;
pub mod backend;
pub mod cli;
pub mod device;
pub mod facts;
pub mod log;
pub mod material;
pub mod moment;
pub mod serve;
pub mod settings;
pub mod ssh;
pub mod stats;
pub mod store;
pub mod throttle;
pub mod transfer;
pub mod unit;
pub mod view;
pub mod worker;
