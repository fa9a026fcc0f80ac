//! A machine that `migdb` migrates over ssh, from a new unit to one that is done.
//!
//! Real are `migdb`, ssh and its server, sudo with a password, both stages, and the new system, which says
//! on its console which device it is. The balena API is the stand-in of tests/migdb. The new system has no
//! network: what it would tell the API, that it is online, this test tells for it, once it is up.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::matrix::Row;
use crate::harness::{Machine, Migratecfg, OsImage, Vm};

#[path = "../migdb/api.rs"]
#[allow(dead_code, reason = "the tests of migdb use the rest of it")]
mod api;
#[path = "../migdb/fleet.rs"]
#[allow(dead_code, reason = "the tests of migdb use the rest of it")]
mod folder;

use api::{Api, TOKEN};
use folder::{Ended, Fleet, ended};

const UNIT: &str = "kitchen-7";
const PASSWORD: &str = "hunter2";

/// The operator's side: a store with one unit, the folder for it, and the API.
struct Operator {
    fleet: Fleet,
    api: Api,
    row: Row,
    _cfg: Migratecfg,
}

impl Operator {
    /// With the machine as its unit.
    fn of(vm: &mut Vm, mut cfg: Migratecfg) -> Operator {
        vm.must(&format!(
            "useradd -m -s /bin/sh -G sudo field && echo field:{PASSWORD} | chpasswd"
        ));
        let port = vm.let_ssh_in();
        let (fleet, api) = (Fleet::new(), Api::new());
        let options = "-F /dev/null -o UserKnownHostsFile=known_hosts -o PubkeyAuthentication=no";
        let conf = format!(
            "MIG_CFG_DIR='{}'\nMIG_DEF_SSH_OPTS='{options}'\nMIG_APP=admin/fleet1\n\
             MIG_BALENA_VER=6.0.10\nMIG_API_ENDPOINT={}\nMIG_DURATION=0\n",
            cfg.of_a_fleet().display(),
            api.url
        );
        fleet.write("fleet.conf", &conf);
        let csv = format!("id,host,user,port\n{UNIT},127.0.0.1,field,{port}\n");
        fleet.write("fleet.csv", &csv);
        fleet.ok(&["add-unit", "--csv", "fleet.csv"]);
        Operator {
            fleet,
            api,
            row: Row::of(
                vm,
                "Debian 12, by migdb over ssh",
                "BIOS",
                Root::Mbr,
                OsImage::get().slug(),
                Instant::now(),
            ),
            _cfg: cfg,
        }
    }

    fn start(&self, verb: &str, rest: &[&str]) -> Child {
        let mut args = vec![verb, "--cfg", "fleet.conf"];
        args.extend(rest);
        let mut command = self.fleet.command(&args);
        command
            .env("MIG_BALENA_TOKEN", TOKEN)
            .env("MIG_SSH_PASSWD", PASSWORD)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starting migdb")
    }

    #[track_caller]
    fn migdb(&self, verb: &str, rest: &[&str]) -> Ended {
        let ended = ended(self.start(verb, rest).wait_with_output().expect("migdb"));
        assert_eq!(ended.code, Some(0), "{ended:?}\n{}", self.log());
        ended
    }

    fn show(&self) -> String {
        self.fleet.ok(&["show", UNIT])
    }

    /// What happened to the unit, for who reads a failed test.
    fn log(&self) -> String {
        let path = format!("db/log/{UNIT}.jsonl");
        fs::read_to_string(self.fleet.path().join(path)).unwrap_or_default()
    }

    /// A look at the whole fleet changes nothing, here or there.
    fn plan(&self, vm: &mut Vm) {
        let told = self.migdb("migrate", &["--plan-only"]);
        let wanted = format!("{UNIT}: ready\n1 of 1 units are ready\n");
        assert_eq!(told.out, wanted, "{}", self.log());
        assert!(self.show().starts_with("# units\n"), "{}", self.show());
        assert_eq!(self.api.requests("POST"), 0, "nothing is registered yet");
        vm.must("test ! -e /var/lib/balena-migrate && test ! -e /boot/balena-migrate.img");
    }

    /// From the reboot of the old system on: the new one starts, as the device that was registered, and
    /// check-done sees it.
    fn new_system(self, mut vm: Vm) {
        let shown = self.show();
        assert!(shown.starts_with("# process\n"), "{shown}\n{}", self.log());
        let looking = self.start("check-done", &["--until-empty"]);
        vm.wait_reboot();
        vm.wait_for("balena-migrate, stage 2");
        vm.wait_for("NEWOS: booted");
        vm.wait_for("NEWOS: done");
        let report = vm.console();
        let machine = vm.wait_off();

        let device = self.api.device(UNIT);
        let uuid = device["uuid"].as_str().expect("a UUID");
        let line = format!("NEWOS: uuid {uuid}");
        assert!(report.contains(&line), "the new system is not {uuid}");
        let config = machine
            .disk()
            .fat_file(1, "/config.json")
            .expect("it is there");
        let config: Value = serde_json::from_slice(&config).expect("it is JSON");
        assert_eq!(config["deviceId"], device["id"], "{config}");
        assert_eq!(config["applicationId"], 1, "{config}");
        assert!(
            self.show().starts_with("# process\n"),
            "it is not online yet"
        );

        self.api.comes_online(UNIT);
        let looked = ended(looking.wait_with_output().expect("migdb"));
        assert_eq!(looked.code, Some(0), "{looked:?}");
        let shown = self.show();
        assert!(shown.starts_with("# done\n"), "{shown}\n{}", self.log());
        assert!(shown.contains(&format!("DEVICE_ID={uuid}\n")), "{shown}");
        assert!(shown.contains("MIG_ATTEMPTS=1\n"), "{shown}");
        assert_eq!(self.api.requests("POST /v7/device"), 1, "registered once");
        assert!(!self.log().contains(PASSWORD), "{}", self.log());
        self.row.add("migrated, online at a stand-in for the API");
    }
}

fn machine(name: &str) -> (Vm, Migratecfg) {
    let cfg = Migratecfg::new(&OsImage::get());
    let guest = Guest {
        tree: Tree::Ssh,
        root: Root::Mbr,
    };
    (Machine::running(name, guest).start(), cfg)
}

#[test]
#[ignore = "minutes"]
fn a_machine_is_migrated_over_ssh() {
    let (mut vm, cfg) = machine("migdb");
    let operator = Operator::of(&mut vm, cfg);
    operator.plan(&mut vm);
    operator.migdb("migrate", &["--until-empty"]);
    operator.new_system(vm);
}
