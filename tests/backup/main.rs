//! The backup: what a definition means, what is wrong with one, and that GNU tar and BusyBox's tar
//! (the one of balenaOS) get out of the archive what was in the files.

mod foreign;
mod forms;
mod kept;
mod making;
mod workshop;
mod wrong;
