//! The wire of a machine. It leads nowhere, until ssh is let in by it from this host; the machine still
//! reaches nothing outside.

use std::net::TcpListener;

use serde_json::json;

use super::Vm;

/// Its address on the wire, as QEMU's own DHCP would give it.
const ADDRESS: &str = "10.0.2.15";

impl Vm {
    /// Gives the running guest its address, and lets ssh in. The port is one of loopback.
    ///
    /// It is done from outside and after the start: a prepared state fits only the arguments that it
    /// was made with.
    #[track_caller]
    pub fn let_ssh_in(&mut self) -> u16 {
        self.must(&format!(
            "ip address add {ADDRESS}/24 dev eth0 && ip link set eth0 up && systemctl start ssh"
        ));
        // Nobody else takes it in so short a time, or QEMU says so.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("finding a free port").port();
        let line = format!("hostfwd_add wire tcp:127.0.0.1:{port}-{ADDRESS}:22");
        let said = self.qemu("human-monitor-command", json!({"command-line": line}));
        if said != "" {
            self.give_up(&format!("{line}: {said}"));
        }
        port
    }
}
