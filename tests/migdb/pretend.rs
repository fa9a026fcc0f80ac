//! A fleet of pretend devices, and a folder migratecfg with a stand-in for balena-migrate.

use std::fs;
use std::process::Command;

use crate::fleet::{Ended, Fleet, ended};
use crate::sshd::{Device, Keys};

pub struct Pretend {
    pub fleet: Fleet,
    pub keys: Keys,
    pub devices: Vec<Device>,
}

impl Pretend {
    /// Units `u0`, `u1` …, each with a device.
    pub fn new(count: usize) -> Pretend {
        let fleet = Fleet::new();
        let machine = balena_migrate::sys::Sys::new("/").uname().unwrap().machine;
        fleet.write(
            &format!("mig/balena-migrate-{machine}"),
            include_str!("pretend.sh"),
        );
        fleet.write("mig/balena-migrate.conf", "IMAGE_NAME=image.gz\n");
        fleet.write("mig/image.gz", &"image ".repeat(300_000));
        let keys = Keys::new();
        let conf = format!(
            "MIG_CFG_DIR=mig\nMIG_DEF_SSH_OPTS='{}'\nMIG_DURATION=0\nMIG_BACKEND=none\nMIG_ONLINE='test -e online-'\"\\$UNIT_ID\"\n",
            keys.options()
        );
        fleet.write("fleet.conf", &conf);
        let mut pretend = Pretend {
            fleet,
            keys,
            devices: Vec::new(),
        };
        pretend.add(count, |_, _| {});
        pretend
    }

    /// So many more devices, and their units. `like` makes each what it is, before a worker sees it.
    pub fn add(&mut self, count: usize, like: impl Fn(usize, &Device)) {
        let first = self.devices.len();
        let mut csv = "id,host,user,port\n".to_owned();
        for n in first..first + count {
            let device = Device::new(&self.keys);
            csv.push_str(&format!("u{n},127.0.0.1,root,{}\n", device.port));
            like(n, &device);
            self.devices.push(device);
        }
        self.fleet.write("fleet.csv", &csv);
        self.fleet.ok(&["add-unit", "--csv", "fleet.csv"]);
    }

    /// From now on a unit is online.
    pub fn online(&self, n: usize) {
        self.fleet.write(&format!("online-u{n}"), "");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let (verb, rest) = args.split_first().unwrap();
        let mut all = vec![*verb, "--cfg", "fleet.conf"];
        all.extend(rest);
        self.fleet.command(&all)
    }

    pub fn migdb(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().unwrap())
    }

    pub fn ok(&self, args: &[&str]) -> Ended {
        let ended = self.migdb(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended
    }

    /// How often a device was told to migrate.
    pub fn orders(&self, n: usize) -> usize {
        let orders = fs::read_to_string(self.devices[n].home().join("orders"));
        orders.map_or(0, |orders| orders.lines().count())
    }

    pub fn show(&self, n: usize) -> String {
        self.fleet.ok(&["show", &format!("u{n}")])
    }
}
