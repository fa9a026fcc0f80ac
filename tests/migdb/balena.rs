//! Workers with the balena backend, against the stand-in.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::api::{Api, TOKEN};
use crate::fleet::{Ended, ended};
use crate::pretend::Pretend;

/// Runs a worker that is registered with the stand-in.
fn migdb(pretend: &Pretend, api: &Api, args: &[&str]) -> Ended {
    let mut command = pretend.command(args);
    command
        .args([
            "--backend",
            "balena",
            "--api-endpoint",
            &api.url,
            "--until-empty",
        ])
        .env("MIG_BALENA_TOKEN", TOKEN);
    ended(command.output().unwrap())
}

const MIGRATE: [&str; 5] = ["migrate", "--app", "admin/fleet1", "--balena-ver", "6.0.0"];

fn config_json(pretend: &Pretend, n: usize) -> Value {
    let path = pretend.devices[n]
        .home()
        .join("migrate/balena-migrate-config.json");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_device_is_registered_gets_its_config_and_comes_online() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    let ended = migdb(&pretend, &api, &MIGRATE);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let config = config_json(&pretend, 0);
    let device = api.device("u0");
    assert_eq!(config["uuid"], device["uuid"]);
    assert_eq!(config["deviceId"], device["id"]);
    assert_eq!(config["deviceType"], "genericx86-64-ext");
    assert_eq!(config["deviceApiKey"].as_str().unwrap().len(), 32);
    assert!(config["registered_at"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(config.get("apiKey"), None);
    assert_eq!(pretend.orders(0), 1);

    let check = ["check-done", "--max-age", "3"];
    api.comes_online("u0");
    let ended = migdb(&pretend, &api, &check);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let shown = pretend.show(0);
    assert!(shown.starts_with("# done\n"), "{shown}");
    assert!(
        shown.contains(&format!("DEVICE_ID={}\n", device["uuid"].as_str().unwrap())),
        "{shown}"
    );
}

#[test]
fn a_registered_device_that_never_shows_up_is_lost() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    migdb(&pretend, &api, &MIGRATE);
    migdb(&pretend, &api, &["check-done", "--max-age", "1"]);
    let shown = pretend.show(0);
    assert!(shown.contains("FAIL_CODE=lost\n"), "{shown}");
    assert!(
        shown.contains("heartbeat unknown, status configuring, no OS version"),
        "{shown}"
    );
}

#[test]
fn nothing_is_registered_before_the_device_has_passed_its_checks() {
    let (pretend, api) = (Pretend::new(2), Api::new());
    pretend.devices[0].flag("refuse");
    pretend.devices[1].set_away(true);
    let mut args = MIGRATE.to_vec();
    args.extend(["--conn-attempts", "1"]);
    migdb(&pretend, &api, &args);
    assert_eq!(pretend.fleet.names("fail").len(), 2);
    assert_eq!(api.kept.lock().unwrap().devices.len(), 0);
    assert_eq!(api.requests("POST"), 0);
}

#[test]
fn a_failed_units_registration_is_used_again() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    pretend.devices[0].flag("break");
    migdb(&pretend, &api, &MIGRATE);
    assert!(pretend.show(0).contains("FAIL_CODE=fault\n"));
    fs::remove_file(pretend.devices[0].home().join("break")).unwrap();
    pretend.ok(&["retry", "--all"]);
    migdb(&pretend, &api, &MIGRATE);
    assert_eq!(pretend.orders(0), 1);
    assert_eq!(api.kept.lock().unwrap().devices.len(), 1);
    assert_eq!(api.requests("POST /v7/device"), 1);
}

#[test]
fn trouble_of_the_server_is_waited_out_and_a_lost_answer_makes_no_second_device() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    {
        let mut kept = api.kept.lock().unwrap();
        kept.faults
            .extend([(503, Some(1)), (429, Some(1)), (500, None)]);
        kept.lose_answer_to = Some("POST /v7/device".to_owned());
    }
    let ended = migdb(&pretend, &api, &MIGRATE);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(pretend.orders(0), 1, "{}", pretend.show(0));
    assert_eq!(api.requests("POST /v7/device"), 2);
    assert_eq!(api.kept.lock().unwrap().devices.len(), 1);
    assert_eq!(config_json(&pretend, 0)["uuid"], api.device("u0")["uuid"]);
}

#[test]
fn a_long_pause_puts_the_unit_off() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    let mut command = pretend.command(&MIGRATE);
    command
        .args(["--backend", "balena", "--api-endpoint", &api.url])
        .env("MIG_BALENA_TOKEN", TOKEN);
    let mut worker = command.spawn().unwrap();
    while api.requests("GET /actor") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    api.kept.lock().unwrap().faults.push_back((429, Some(4000)));
    while !pretend.show(0).contains("DUE_TS=") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    pretend.fleet.ok(&["stop"]);
    assert!(worker.wait().unwrap().success());
    let shown = pretend.show(0);
    assert!(shown.starts_with("# units\n"), "{shown}");
    assert!(shown.contains("has trouble: it answers 429"), "{shown}");
    let due: i64 = shown
        .split_once("DUE_TS=")
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let now = balena_migrate::fleet::moment::Moment::now().0;
    assert!((3900..4001).contains(&(due - now)), "{}", due - now);
    assert_eq!(pretend.orders(0), 0);
}

#[test]
fn a_wrong_token_stops_before_any_unit_is_touched() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    let mut command = pretend.command(&MIGRATE);
    command.args(["--backend", "balena", "--api-endpoint", &api.url]);
    let none = ended(command.output().unwrap());
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.err.contains("MIG_BALENA_TOKEN"), "{none:?}");
    let wrong = ended(command.env("MIG_BALENA_TOKEN", "wrong").output().unwrap());
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(
        wrong.err.contains("refuses the token (401 Unauthorized)"),
        "{wrong:?}"
    );
    assert_eq!(pretend.devices[0].connections(), 0);
}

#[test]
fn the_token_is_found_where_the_cli_has_it_and_in_a_file() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    pretend
        .fleet
        .write("home/.balena/token", &format!("{TOKEN}\n"));
    pretend.fleet.write("token", TOKEN);
    let home = pretend.fleet.path().join("home");
    let run = |args: &[&str], home: Option<&std::path::Path>| {
        let mut command = pretend.command(&["check-done", "--until-empty", "--backend", "balena"]);
        command.args(["--api-endpoint", &api.url]).args(args);
        if let Some(home) = home {
            command.env("HOME", home);
        }
        ended(command.output().unwrap())
    };
    for ended in [
        run(&[], Some(&home)),
        run(&["--balena-token-file", "token"], None),
    ] {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_eq!(run(&[], None).code, Some(2));
}

#[test]
fn without_an_image_store_the_fleets_config_serves() {
    let (pretend, api) = (Pretend::new(1), Api::new());
    api.kept.lock().unwrap().no_image_store = true;
    let fleet = |id: u32| {
        format!(
            "{{\"applicationId\":{id},\"deviceType\":\"x\",\"apiKey\":\"k\",\"apiEndpoint\":\"{}\"}}",
            api.url
        )
    };
    pretend.fleet.write("config.json", &fleet(2));
    let args = ["migrate", "--app", "1", "--fleet-config", "config.json"];
    migdb(&pretend, &api, &args);
    let shown = pretend.show(0);
    assert!(
        shown.contains("is for fleet 2, and the unit is for fleet 1"),
        "{shown}"
    );
    assert_eq!(
        api.kept.lock().unwrap().devices.len(),
        0,
        "nothing was registered for it"
    );

    pretend.fleet.write("config.json", &fleet(1));
    pretend.ok(&["retry", "--all"]);
    migdb(&pretend, &api, &args);
    assert_eq!(config_json(&pretend, 0)["uuid"], api.device("u0")["uuid"]);
    assert_eq!(config_json(&pretend, 0).get("apiKey"), None);
}
