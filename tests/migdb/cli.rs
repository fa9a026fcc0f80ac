//! The verbs that need no device, by old and new names.

use std::fs;
use std::os::unix::process::CommandExt;

use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::settings::SETTINGS;
use balena_migrate::fleet::store::{State, Store};
use balena_migrate::fleet::unit::{Status, field};

use crate::fleet::{Fleet, claim, ended, unit};

#[test]
fn a_unit_has_all_that_the_old_options_say() {
    let fleet = Fleet::new();
    fleet.ok(&[
        "add-unit",
        "--host",
        "10.0.0.7",
        "-u",
        "pi",
        "--passwd",
        "it's secret",
        "-p",
        "2222",
        "--ssh-opts",
        "-o X=y -v",
        "--app",
        "org/fleet",
        "--balena-ver",
        "6.0.0",
        "--cfg-dir",
        "mig",
        "--cfg-tgz",
        "/x/mig.tgz",
        "--color",
        "--base",
        ".",
        "pi-7",
    ]);
    let text = fleet.only("units");
    assert!(
        text.starts_with("UNIT_ID=pi-7\nSTATUS=INIT\nCREATE_TS="),
        "{text}"
    );
    let cwd = fleet.path().canonicalize().unwrap();
    let wanted = [
        "MIG_SSH_HOST=10.0.0.7",
        "MIG_SSH_USER=pi",
        "MIG_SSH_PASSWD='it'\\''s secret'",
        "MIG_SSH_PORT=2222",
        "MIG_SSH_OPTS='-o X=y -v'",
        "MIG_APP=org/fleet",
        "MIG_BALENA_VER=6.0.0",
        &format!("MIG_CFG_DIR={}/mig", cwd.display()),
        "MIG_CFG_ARCHIVE=/x/mig.tgz",
    ];
    for line in wanted {
        assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
    }
    let shown = fleet.ok(&["show", "pi-7"]);
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("MIG_SSH_PASSWD='(left out)'"), "{shown}");
    // A shell reads it as it was meant.
    let file = fleet.path().join("db/units").join(&fleet.names("units")[0]);
    let script = ". \"$1\"; printf %s \"$MIG_SSH_PASSWD\"";
    let read = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(file)
        .output();
    assert_eq!(read.unwrap().stdout, b"it's secret");
}

#[test]
fn the_old_programs_names_work() {
    let fleet = Fleet::new();
    let old = |name: &str, args: &[&str]| {
        let mut command = fleet.command(args);
        command.arg0(name);
        ended(command.output().unwrap())
    };
    let added = old("/usr/local/bin/migdb-add-unit", &["--host=h", "a"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let stats = old("migdb-stats", &["--base", "."]);
    assert!(stats.out.starts_with("id;state;mig.att.;"), "{stats:?}");
    assert_eq!(old("migdb-stop", &[]).out, "no worker runs\n");
}

#[test]
fn a_password_may_come_from_standard_input() {
    use std::io::Write;
    let fleet = Fleet::new();
    let mut command = fleet.command(&["add-unit", "--passwd", "-", "a"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(fleet.only("units").contains("MIG_SSH_PASSWD=hunter2\n"));
}

#[test]
fn options_win_over_the_environment_and_that_over_the_file() {
    let fleet = Fleet::new();
    fleet.write(
        "fleet.conf",
        "MIG_APP=file\nMIG_SSH_USER='file user'\nexport MIG_SSH_PORT=23 # x\n",
    );
    let mut command = fleet.command(&["add-unit", "-c", "fleet.conf", "--app", "flag", "a"]);
    command.env("MIG_APP", "variable").env("MIG_SSH_PORT", "24");
    let ended = ended(command.output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let text = fleet.only("units");
    for line in [
        "MIG_APP=flag\n",
        "MIG_SSH_USER='file user'\n",
        "MIG_SSH_PORT=24\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn the_file_is_parsed_and_never_executed() {
    let fleet = Fleet::new();
    for text in [
        "touch ran\n",
        "MIG_APP=$(touch ran)\n",
        "MIG_APP=`touch ran`\n",
        "MIG_APP=\"$X\"\n",
    ] {
        fleet.write("fleet.conf", text);
        let ended = fleet.migdb(&["add-unit", "-c", "fleet.conf", "a"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.err.contains("this file is read, not run"),
            "{ended:?}"
        );
    }
    assert!(!fleet.path().join("ran").exists());
    assert!(!fleet.path().join("db").exists());
}

#[test]
fn all_that_is_wrong_with_the_settings_is_told_at_once() {
    let fleet = Fleet::new();
    fleet.write("fleet.conf", "MIG_AP=x\nMIG_MIN_AGE=soon\n");
    let mut command = fleet.command(&["add-unit", "--cfg", "fleet.conf", "-p", "0", "a"]);
    command.env("MIG_CONN_ATTEMPTS", "-1");
    assert_eq!(
        ended(command.output().unwrap()).err,
        "migdb: --port: MIG_SSH_PORT can't be `0`; write a number from 1 to 65535\n\
         the variable MIG_CONN_ATTEMPTS: MIG_CONN_ATTEMPTS can't be `-1`; write a whole number from 0\n\
         fleet.conf:1:1: MIG_AP is not a setting; did you mean MIG_APP?\n\
         fleet.conf:2:1: MIG_MIN_AGE can't be `soon`; write a whole number from 0\n"
    );
    let ended = fleet.migdb(&["list", "--cfg", "nowhere"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("nowhere: it can't be read"), "{ended:?}");
}

#[test]
fn every_variable_of_the_older_tools_is_a_setting() {
    for name in [
        "MIG_APP",
        "MIG_BALENA_TOKEN",
        "MIG_BALENA_VER",
        "MIG_CFG",
        "MIG_CFG_ARCHIVE",
        "MIG_CFG_DIR",
        "MIG_CONN_ATTEMPTS",
        "MIG_DB_DIR",
        "MIG_DEF_SSH_OPTS",
        "MIG_DURATION",
        "MIG_EXEC_TIMEOUT",
        "MIG_LOG_TO",
        "MIG_MAX_STATUS_AGE",
        "MIG_MIN_AGE",
        "MIG_RECONN_TIME",
        "MIG_SSH_HOST",
        "MIG_SSH_OPTS",
        "MIG_SSH_PASSWD",
        "MIG_SSH_PORT",
        "MIG_SSH_USER",
        "MIG_TX_TIMEOUT",
    ] {
        assert!(
            SETTINGS.iter().any(|setting| setting.name == name),
            "{name}"
        );
    }
}

#[test]
fn a_thousand_units_come_from_a_csv_file() {
    let fleet = Fleet::new();
    let rows = (0..1000).map(|n| format!("dev-{n},10.0.{}.{},\"a,b\"\n", n / 250, n % 250));
    let text = "id,host,MIG_SSH_PASSWD\n".to_owned() + &rows.collect::<String>();
    fleet.write("fleet.csv", &text);
    assert_eq!(
        fleet.ok(&["add-unit", "--csv", "fleet.csv", "--user", "pi"]),
        "1000 units were added\n"
    );
    let all = fleet.open().all().unwrap();
    assert_eq!(all.len(), 1000);
    let unit = &all
        .iter()
        .find(|entry| entry.unit.id() == "dev-777")
        .unwrap()
        .unit;
    assert_eq!(unit.get("MIG_SSH_HOST"), Some("10.0.3.27"));
    assert_eq!(unit.get("MIG_SSH_PASSWD"), Some("a,b"));
    assert_eq!(unit.get("MIG_SSH_USER"), Some("pi"));

    let again = fleet.migdb(&["add-unit", "--csv", "fleet.csv"]);
    assert_eq!(again.code, Some(3));
    assert!(
        again.err.contains("unit dev-0 is there already, in units"),
        "{}",
        again.err
    );
    fleet.write("fleet.csv", &(text + "dev-1000,h,\n"));
    assert_eq!(
        fleet.ok(&["add-unit", "--csv", "fleet.csv", "--skip-existing"]),
        "unit dev-1000 was added\n"
    );
}

#[test]
fn what_is_wrong_with_a_csv_file_is_told_by_line_and_nothing_is_added() {
    let fleet = Fleet::new();
    fleet.write("f.csv", "id,port\na,22\nb,x\na,23\nc\n../d,1\n");
    let ended = fleet.migdb(&["add-unit", "--csv", "f.csv"]);
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.err,
        "migdb: f.csv:5: there are 1 values, and the first line has 2; put values with a comma in \
         double quotes\n\
         f.csv:3: MIG_SSH_PORT can't be `x`; write a number from 1 to 65535\n\
         f.csv:4: unit a is in line 2 already; leave one of them out\n\
         f.csv:6: `../d` can't be a unit id; use letters, digits, `.`, `_` and `-`, and begin with a \
         letter or digit\n"
    );
    fleet.write("f.csv", "host,colour\nh,red\n");
    let ended = fleet.migdb(&["add-unit", "--csv", "f.csv"]);
    assert!(
        ended.err.contains("f.csv:1: there is no setting `colour`"),
        "{ended:?}"
    );
    assert!(
        ended.err.contains("f.csv:1: there is no column `id`"),
        "{ended:?}"
    );
    assert!(!fleet.path().join("db").exists());
}

#[test]
fn units_come_from_a_list() {
    let fleet = Fleet::new();
    fleet.write("list", "# ours\n\npi-1.lab\npi-2 10.0.0.2 # the second\n");
    fleet.ok(&["add-unit", "--list", "list"]);
    let all = fleet.open().all().unwrap();
    let hosts: Vec<_> = all
        .iter()
        .map(|entry| entry.unit.get("MIG_SSH_HOST").unwrap())
        .collect();
    assert_eq!(hosts, ["pi-1.lab", "10.0.0.2"]);
    fleet.write("list", "a b c\n");
    let ended = fleet.migdb(&["add-unit", "--list", "list"]);
    assert!(
        ended.err.contains("list:1: there are more than two words"),
        "{ended:?}"
    );
}

/// A fleet with a unit in each state but tmp.
fn mixed() -> Fleet {
    let fleet = Fleet::new();
    let store = fleet.open();
    let mut lost = unit("lost");
    lost.set("MIG_SSH_HOST", "10.0.0.9");
    lost.set(field::DEVICE, "0123abcd");
    store.add(&[unit("done"), lost]).unwrap();
    while let Some(mut held) = claim(&store, State::Units) {
        held.unit.set(field::CREATED, "1784000000");
        held.unit
            .set_status(Status::Migrated, Moment(1_784_000_100));
        match held.unit.id() {
            "done" => held.unit.set_status(Status::Done, Moment(1_784_000_300)),
            _ => held
                .unit
                .fail("lost", "not online; in time", Moment(1_784_001_000)),
        }
        store.release(held).unwrap();
    }
    store.add(&[unit("waits")]).unwrap();
    fleet
}

#[test]
fn the_list_shows_all_units() {
    let fleet = mixed();
    assert_eq!(
        fleet.ok(&["list"]),
        "unit   state  status    host      due  message\n\
         done   done   DONE\n\
         lost   fail   MIGRATED  10.0.0.9       not online; in time\n\
         waits  units  INIT\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&fleet.ok(&["list", "--json", "--state", "fail"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["failCode"], "lost");
    assert_eq!(fleet.migdb(&["show", "nobody"]).code, Some(3));
    assert_eq!(Fleet::new().migdb(&["list"]).code, Some(2));
}

#[test]
fn statistics_have_the_old_columns() {
    let fleet = mixed();
    let wanted = "id;state;mig.att.;conn.att.;created;last;mig.offs.;duration;balena id;fail Msg;comment\n\
        done;DONE;1;0;2026-07-14 03:33:20+00:00;2026-07-14 03:38:20+00:00;100;300;;;\n\
        lost;LOST;1;0;2026-07-14 03:33:20+00:00;2026-07-14 03:50:00+00:00;100;1000;0123abcd;not online, in time;\n\
        \nDONE;1\nLOST;1\nNO_CONN;0\nTIMEOUT;0\nNO_SPACE;0\nREAD_ONLY;0\nBCKUP;0\nOTHER;0\n";
    assert_eq!(fleet.ok(&["stats"]), wanted);
    fleet.ok(&["stats", "-o", "out.csv"]);
    assert_eq!(
        fs::read_to_string(fleet.path().join("out.csv")).unwrap(),
        wanted
    );
    let json: serde_json::Value = serde_json::from_str(&fleet.ok(&["stats", "--json"])).unwrap();
    assert_eq!(json["states"]["units"], 1);
    assert_eq!(json["outcomes"]["LOST"], 1);
    assert_eq!(json["units"][1]["duration"], 1000);
}

#[test]
fn the_older_tools_files_count_once() {
    let fleet = Fleet::new();
    fleet.open();
    let file = |name: &str, rest: &str| {
        fleet.write(name, &format!("UNIT_ID=\"a\"\nCREATE_TS=100\n{rest}"));
    };
    file(
        "db/fail/fail-a-001",
        "STATUS=\"INIT\"\nFAIL_TS=200\nFAIL_MSG=no\n",
    );
    file(
        "db/done/unit-a-002",
        "STATUS=\"DONE\"\nSTATUS_TS=150\nMIG_CONN_RETRIES=2\n",
    );
    let out = fleet.ok(&["stats"]);
    assert!(out.contains("\na;DONE;2;2;"), "{out}");
    assert!(out.contains(";2 unit files\n"), "{out}");
    assert!(out.contains("\nOTHER;0\n"), "{out}");
}

#[test]
fn failed_units_get_another_chance() {
    let fleet = mixed();
    let refused = fleet.migdb(&["retry", "lost", "done", "nobody"]);
    assert_eq!(refused.code, Some(3));
    assert_eq!(
        refused.err,
        "migdb: unit done has not failed, it is in done; leave it out\n\
         there is no unit nobody; `migdb list` shows all\n"
    );
    assert_eq!(fleet.names("fail").len(), 1);
    assert_eq!(
        fleet.ok(&["retry", "--code", "timeout"]),
        "0 units get another chance\n"
    );
    assert_eq!(fleet.ok(&["retry", "lost"]), "1 units get another chance\n");
    assert_eq!(fleet.names("process").len(), 1);

    let fleet = mixed();
    fleet.ok(&["retry", "--all", "--from-scratch"]);
    let again = fleet.ok(&["show", "lost"]);
    assert!(again.starts_with("# units\n"), "{again}");
    assert!(
        again.contains("STATUS=INIT\n") && again.contains("DEVICE_ID=0123abcd\n"),
        "{again}"
    );
}

#[test]
fn stop_waits_for_the_last_worker() {
    let fleet = Fleet::new();
    let store = fleet.open();
    let note = store.enlist("migrate").unwrap();
    let mut stop = fleet.command(&["stop"]).spawn().unwrap();
    while !store.stop_asked().unwrap() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(stop.try_wait().unwrap(), None, "a worker still runs");
    store.leave(&note).unwrap();
    assert!(stop.wait().unwrap().success());
    assert!(!store.stop_asked().unwrap());
}
