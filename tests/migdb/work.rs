//! Workers on pretend devices: the whole way of a unit, and all that can come in between.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pretend::Pretend;

#[test]
fn a_unit_is_migrated_and_seen_online() {
    let pretend = Pretend::new(1);
    pretend.online(0);
    pretend.ok(&["migrate", "--check-done", "--until-empty"]);
    let shown = pretend.show(0);
    assert!(shown.starts_with("# done\n"), "{shown}");
    for line in [
        "STATUS=DONE\n",
        "MIG_ATTEMPTS=1\n",
        "MIGRATED_ISOTS=",
        "DONE_ISOTS=",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert_eq!(pretend.orders(0), 1);
    assert_eq!(pretend.devices[0].connections(), 1);
    let log = fs::read_to_string(pretend.fleet.path().join("db/log/u0.jsonl")).unwrap();
    let phases: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["phase"].as_str().unwrap().to_owned())
        .collect();
    let mut order = phases.clone();
    order.dedup();
    assert_eq!(
        order,
        [
            "connect", "transfer", "status", "check", "plan", "enrol", "run", "online"
        ]
    );
    let stats = pretend.fleet.ok(&["stats"]);
    assert!(stats.contains("u0;DONE;1;0;"), "{stats}");
}

#[test]
fn a_lost_unit_fails_and_is_only_looked_for_again() {
    let pretend = Pretend::new(1);
    pretend.ok(&["migrate", "--check-done", "--until-empty", "--max-age", "1"]);
    let shown = pretend.show(0);
    assert!(shown.contains("FAIL_CODE=lost\n"), "{shown}");
    assert!(shown.contains("ended with code 1"), "{shown}");
    pretend.online(0);
    pretend.ok(&["retry", "--code", "lost"]);
    pretend.ok(&["check-done", "--until-empty"]);
    assert!(pretend.show(0).starts_with("# done\n"));
    assert_eq!(pretend.orders(0), 1);
}

#[test]
fn a_plan_tells_of_all_units_and_changes_none() {
    let pretend = Pretend::new(3);
    pretend.devices[1].flag("refuse");
    pretend.devices[2].set_away(true);
    let told = pretend.ok(&["migrate", "--plan-only", "-j", "3"]);
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(
        lines[0],
        "u1: disk-size: disk-size: the disk is too small; take a larger one"
    );
    assert!(lines[1].starts_with("u2: no-connection: "), "{}", lines[1]);
    assert_eq!(lines[2..], ["u0: ready", "1 of 3 units are ready"]);
    assert_eq!(pretend.fleet.names("units").len(), 3);
    assert_eq!((0..3).map(|n| pretend.orders(n)).sum::<usize>(), 0);
}

#[test]
fn a_device_that_refuses_is_not_ordered_and_gets_another_chance() {
    let pretend = Pretend::new(3);
    pretend.devices[0].flag("refuse");
    pretend.devices[1].flag("break");
    pretend.devices[2].flag("odd");
    pretend.ok(&["migrate", "--until-empty", "--jobs", "3"]);
    let wanted = [
        (
            0,
            "disk-size",
            "disk-size: the disk is too small; take a larger one",
        ),
        (1, "fault", "writing /boot/x: no space"),
        (2, "fault", "ended with code 1: it says nothing more"),
    ];
    for (n, code, message) in wanted {
        let shown = pretend.show(n);
        assert!(shown.starts_with("# fail\n"), "{shown}");
        assert!(shown.contains("STATUS=INIT\n"), "{shown}");
        assert!(shown.contains(&format!("FAIL_CODE={code}\n")), "{shown}");
        assert!(shown.contains(message), "{shown}");
        assert_eq!(pretend.orders(n), 0);
    }
    for (device, flag) in std::iter::zip(&pretend.devices, ["refuse", "break", "odd"]) {
        fs::remove_file(device.home().join(flag)).unwrap();
    }
    pretend.ok(&["retry", "--all"]);
    pretend.ok(&["migrate", "--until-empty"]);
    assert_eq!(pretend.fleet.names("process").len(), 3);
}

#[test]
fn what_an_earlier_run_left_is_taken_back_first() {
    let pretend = Pretend::new(2);
    fs::write(pretend.devices[0].home().join("state"), "returned\n").unwrap();
    fs::write(pretend.devices[1].home().join("state"), "armed\n").unwrap();
    pretend.ok(&["migrate", "--until-empty"]);
    assert_eq!(pretend.orders(0), 1);
    // Somebody else armed it.
    assert_eq!(pretend.orders(1), 0);
    assert!(pretend.show(1).contains("FAIL_CODE=earlier-run\n"));
}

#[test]
fn who_can_not_be_reached_is_tried_again_and_then_given_up() {
    let pretend = Pretend::new(1);
    pretend.devices[0].set_away(true);
    let start = Instant::now();
    pretend.ok(&[
        "migrate",
        "--until-empty",
        "--conn-attempts",
        "3",
        "--reconn-time",
        "1",
    ]);
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "pauses of 1 and 2 s"
    );
    assert_eq!(pretend.devices[0].connections(), 3);
    let shown = pretend.show(0);
    assert!(shown.contains("FAIL_CODE=no-connection\n"), "{shown}");
    assert!(shown.contains("MIG_CONN_RETRIES=3\n"), "{shown}");
    assert_eq!(pretend.orders(0), 0);
}

#[test]
fn an_order_whose_answer_was_cut_off_is_not_given_twice() {
    let pretend = Pretend::new(2);
    for device in &pretend.devices {
        device.flag("slow");
    }
    let args = ["migrate", "--until-empty", "-j", "2", "--reconn-time", "1"];
    let mut worker = pretend
        .command(&args)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while (0..2).any(|n| pretend.orders(n) == 0) {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(20));
    }
    // One comes back as it was, the other is in its reboot.
    pretend.devices[1].set_away(true);
    for device in &pretend.devices {
        device.cut();
    }
    assert!(worker.wait().unwrap().success());
    for n in 0..2 {
        assert_eq!(pretend.orders(n), 1, "{n}");
        let shown = pretend.show(n);
        assert!(shown.starts_with("# process\n"), "{shown}");
    }
}

/// The order of a worker that was killed is still being carried out when the next one comes.
#[test]
fn a_device_that_still_prepares_is_waited_for() {
    let pretend = Pretend::new(1);
    let device = &pretend.devices[0];
    fs::write(device.home().join("prepares"), "3\n").unwrap();
    let args = ["migrate", "--until-empty"];
    let mut command = pretend.command(&args);
    let mut worker = command.stderr(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while !device.home().join("state").exists() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    pretend.ok(&args);
    let shown = pretend.show(0);
    assert!(shown.starts_with("# process\n"), "{shown}");
    assert!(shown.contains("MIG_ATTEMPTS=1\n"), "{shown}");
    assert_eq!(pretend.orders(0), 1);
    let log = fs::read_to_string(pretend.fleet.path().join("db/log/u0.jsonl")).unwrap();
    assert!(log.contains("it is running; again in 10 s"), "{log}");
}

#[test]
fn a_bad_image_does_not_take_the_fleet() {
    let pretend = Pretend::new(6);
    for device in &pretend.devices {
        device.flag("break");
    }
    let ended = pretend.migdb(&[
        "migrate",
        "--until-empty",
        "-j",
        "4",
        "--first",
        "2",
        "--max-fail",
        "50",
    ]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended
            .err
            .contains("2 of 2 migrated units failed, more than 50 %"),
        "{ended:?}"
    );
    assert_eq!(pretend.fleet.names("fail").len(), 2);
    assert_eq!(pretend.fleet.names("units").len(), 4);
}

#[test]
fn a_password_is_in_no_log() {
    let pretend = Pretend::new(1);
    pretend.devices[0].program("sudo", crate::ssh::SUDO);
    let options = format!("{} -o PubkeyAuthentication=no", pretend.keys.options());
    pretend.ok(&["retry", "--all"]);
    let mut command = pretend.command(&[
        "migrate",
        "--until-empty",
        "--user",
        "pi",
        "--ssh-opts",
        &options,
        "--conn-attempts",
        "1",
        "--log-level",
        "trace",
    ]);
    let ended = crate::fleet::ended(command.env("MIG_SSH_PASSWD", "hunter2").output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(pretend.orders(0), 1, "{}", pretend.show(0));
    let log = fs::read_to_string(pretend.fleet.path().join("db/log/u0.jsonl")).unwrap();
    for text in [ended.out, ended.err, log, pretend.show(0)] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_folder_may_be_an_archive_and_config_json_given() {
    let pretend = Pretend::new(1);
    let done = std::process::Command::new("tar")
        .args(["-czf", "../mig.tgz", "."])
        .current_dir(pretend.fleet.path().join("mig"))
        .status();
    assert!(done.unwrap().success());
    fs::remove_dir_all(pretend.fleet.path().join("mig")).unwrap();
    let conf = fs::read_to_string(pretend.fleet.path().join("fleet.conf")).unwrap();
    pretend.fleet.write(
        "fleet.conf",
        &conf.replace("MIG_CFG_DIR=mig", "MIG_CFG_ARCHIVE=mig.tgz"),
    );
    pretend.fleet.write("c.json", "{\"uuid\":\"1\"}");
    pretend.ok(&["migrate", "--until-empty", "--config-json", "c.json"]);
    assert_eq!(pretend.orders(0), 1, "{}", pretend.show(0));
    let there = pretend.devices[0]
        .home()
        .join("migrate/balena-migrate-config.json");
    assert_eq!(fs::read_to_string(there).unwrap(), "{\"uuid\":\"1\"}");
}

#[test]
fn the_first_signal_drains_and_the_second_one_ends() {
    let pretend = Pretend::new(2);
    for device in &pretend.devices {
        device.flag("slow");
    }
    let start = |args: &[&str]| pretend.command(args).stderr(Stdio::null()).spawn().unwrap();
    let until = |wanted: &dyn Fn() -> bool| {
        let patience = Instant::now() + Duration::from_secs(60);
        while !wanted() {
            assert!(Instant::now() < patience);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut worker = start(&["migrate"]);
    until(&|| (0..2).any(|n| pretend.orders(n) == 1));
    let pid = Pid::from_raw(worker.id() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    assert!(worker.wait().unwrap().success());
    assert_eq!(
        pretend.fleet.names("process").len(),
        1,
        "the unit in hand was finished"
    );
    assert_eq!(pretend.fleet.names("units").len(), 1, "no other was taken");

    let mut worker = start(&["migrate"]);
    until(&|| (0..2).all(|n| pretend.orders(n) == 1));
    let pid = Pid::from_raw(worker.id() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(130));
    assert_eq!(pretend.fleet.names("process").len(), 1);
    pretend.ok(&["migrate", "--until-empty"]);
    assert_eq!(pretend.fleet.names("process").len(), 2);
    assert_eq!(
        pretend.orders(0) + pretend.orders(1),
        2,
        "none was told twice"
    );
}

#[test]
fn stop_lets_a_worker_finish() {
    let pretend = Pretend::new(1);
    pretend.devices[0].flag("slow");
    let mut worker = pretend
        .command(&["migrate"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while pretend.orders(0) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(pretend.fleet.ok(&["stop"]), "no worker runs\n");
    assert!(worker.wait().unwrap().success());
    assert_eq!(pretend.fleet.names("process").len(), 1);
}

/// Minutes: run by name.
#[test]
#[ignore = "500 devices take minutes"]
fn five_hundred_units_by_eight_jobs() {
    let count = 500;
    let pretend = Pretend::new(count);
    (0..count).for_each(|n| pretend.online(n));
    let start = Instant::now();
    pretend.ok(&["migrate", "--jobs", "8", "--check-done", "--until-empty"]);
    println!("{count} units in {:.0} s", start.elapsed().as_secs_f64());
    assert_eq!(pretend.fleet.names("done").len(), count);
    assert!((0..count).all(|n| pretend.orders(n) == 1));
}
