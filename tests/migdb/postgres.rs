//! migdb with `--base postgres://…`: what it prints, who may log in and how, and a server that goes away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use balena_migrate::fleet::store::State;

use crate::bed::{Bed, states};
use crate::cluster::{ASKED, PASSWORD, cluster};
use crate::fleet::{Ended, Fleet, claim, unit};
use crate::pretend::Pretend;

#[test]
fn the_verbs_work_on_a_database() {
    let bed = Bed::postgres();
    let fleet = &bed.fleet;
    let base = bed.base();
    let migdb = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--base", &base]);
        fleet.migdb(&all)
    };
    let ended = migdb(&["list"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("there is no fleet in postgres://"),
        "{ended:?}"
    );

    let ended = migdb(&["add-unit", "a", "--host", "10.0.0.7"]);
    assert_eq!(ended.out, "unit a was added\n", "{ended:?}");
    assert_eq!(migdb(&["add-unit", "a"]).code, Some(3));
    assert!(migdb(&["list"]).out.contains("10.0.0.7"));
    assert!(migdb(&["show", "a"]).out.contains("MIG_SSH_HOST=10.0.0.7"));
    assert_eq!(migdb(&["stop"]).out, "no worker runs\n");
    assert!(!fleet.path().join("db").exists());

    let ended = migdb(&["move", "--to", "."]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fleet.names("units").len(), 1);
    let ended = fleet.migdb(&["move", "--to", &base]);
    assert!(
        ended.out.starts_with("1 units were moved to postgres://"),
        "{ended:?}"
    );
    assert_eq!(
        states(bed.open().as_ref()),
        [("a".to_owned(), State::Units)]
    );
}

/// The database over TCP, as a user whose password is asked for.
fn url(name: &str, password: &str, rest: &str) -> String {
    format!(
        "postgres://{ASKED}{password}@localhost:{}/{name}{rest}",
        cluster().port
    )
}

fn encoded() -> String {
    PASSWORD
        .replace(':', "%3A")
        .replace('@', "%40")
        .replace('/', "%2F")
}

#[test]
fn the_password_comes_from_where_nobody_sees_it_and_is_never_shown() {
    let database = cluster().database();
    let fleet = Fleet::new();
    let bare = url(&database.name, "", "");
    let with = url(&database.name, &format!(":{}", encoded()), "");
    let list = |base: &str, variables: &[(&str, &str)]| {
        let mut command = fleet.command(&["add-unit", "--base", base, "--log-level", "trace", "x"]);
        command
            .args(["--skip-existing"])
            .envs(variables.iter().copied());
        let ended = crate::fleet::ended(command.output().unwrap());
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
        ended
    };
    let ended = list(&with, &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .err
            .contains("others on this machine see the password in --base")
    );

    let refused = |ended: Ended| {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.err.contains(&bare),
            "it is named without its password: {ended:?}"
        );
    };
    refused(list(&bare, &[]));
    refused(list(&bare, &[("PGPASSWORD", "hunter2-wrong")]));

    let good = |ended: Ended| assert_eq!(ended.code, Some(0), "{ended:?}");
    good(list(&bare, &[("PGPASSWORD", PASSWORD)]));

    let line = PASSWORD.replace(':', "\\:");
    let file = fleet.write(".pgpass", &format!("localhost:*:*:{ASKED}:{line}\n"));
    let home = fleet.path().to_str().unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = list(&bare, &[("HOME", home)]);
    assert!(ended.err.contains("chmod 600"), "{ended:?}");
    refused(ended);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    good(list(&bare, &[("HOME", home)]));

    fleet.write("fleet.conf", &format!("MIG_DB_DIR='{with}'\n"));
    let ended = fleet.migdb(&["list", "--cfg", "fleet.conf", "--log-level", "trace"]);
    assert!(ended.out.contains("units"), "{ended:?}");
    assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
}

#[test]
fn the_password_of_a_unit_is_in_no_log_of_a_statement() {
    let bed = Bed::postgres();
    let base = bed.base();
    let mut command = bed.fleet.command(&["add-unit", "a", "--base", &base]);
    command
        .args(["--log-level", "trace"])
        .env("MIG_SSH_PASSWD", "hunter2");
    let ended = crate::fleet::ended(command.output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
    // Nor may any other crate tell what it sends.
    assert!(!ended.err.contains("executing statement"), "{ended:?}");
    // An index that refuses a row shows its value, to who asks for the detail.
    bed.sql("CREATE UNIQUE INDEX ON migdb_units (substring(text from 'hunter2'))");
    let mut command = bed.fleet.command(&["add-unit", "b", "--base", &base]);
    command.env("MIG_SSH_PASSWD", "hunter2");
    let ended = crate::fleet::ended(command.output().unwrap());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("unique constraint"), "{ended:?}");
    assert!(!ended.err.contains("hunter2"), "{ended:?}");
}

#[test]
fn tls_is_to_a_server_with_a_certificate_to_trust() {
    let database = cluster().database();
    let fleet = Fleet::new();
    fleet.write("root.pem", &cluster().authority.root());
    fleet.write("other.pem", &crate::tls::Authority::new().root());
    let add = |host: &str, rest: &str| {
        let base = url(&database.name, "", rest).replace("localhost", host);
        let mut command = fleet.command(&["add-unit", "x", "--skip-existing", "--base", &base]);
        crate::fleet::ended(command.env("PGPASSWORD", PASSWORD).output().unwrap())
    };
    let ended = add("localhost", "?sslmode=verify-full&sslrootcert=root.pem");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let over_tls = format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE ssl AND datname = '{}'",
        database.name
    );
    let bed_url = url(
        &database.name,
        &format!(":{}", encoded()),
        &format!("?sslrootcert={}", fleet.path().join("root.pem").display()),
    );
    let store = crate::bed::open(&bed_url);
    assert_eq!(cluster().sql("postgres", &over_tls), "1\n");
    drop(store);

    for (host, rest) in [
        ("localhost", "?sslmode=require"),
        ("localhost", "?sslrootcert=other.pem"),
        // It is not the server that the certificate names.
        ("127.0.0.1", "?sslrootcert=root.pem"),
    ] {
        let began = Instant::now();
        let ended = add(host, rest);
        assert_eq!(ended.code, Some(1), "{rest}: {ended:?}");
        assert!(ended.err.contains("invalid peer certificate"), "{ended:?}");
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "a wrong certificate stays wrong"
        );
    }
    let ended = add("localhost", "?sslmode=prefer");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let ended = add("localhost", "?sslrootcert=none.pem");
    assert!(
        ended.err.contains("none.pem (sslrootcert) can't be read"),
        "{ended:?}"
    );
}

#[test]
fn a_lost_connection_is_made_again() {
    let bed = Bed::postgres();
    let store = bed.open();
    let cut = || {
        bed.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    };
    store.add(&[unit("a")]).unwrap();
    cut();
    let held = claim(store.as_ref(), State::Units).unwrap();
    cut();
    store.save(&held).unwrap();
    cut();
    store.release(held).unwrap();
    assert_eq!(states(store.as_ref()), [("a".to_owned(), State::Units)]);

    // Also the one that listens.
    let held = claim(store.as_ref(), State::Units).unwrap();
    store.wait(Duration::from_secs(1)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    cut();
    let other = bed.open();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            other.add(&[unit("b")]).unwrap();
        });
        while claim(store.as_ref(), State::Units).is_none() {
            store.wait(Duration::from_secs(60)).unwrap();
        }
    });
    assert!(began.elapsed() < Duration::from_secs(30));
    drop(held);
}

/// Two processes, one of them killed in the middle: the other one ends the work.
#[test]
fn workers_share_a_database() {
    let bed = Bed::postgres();
    let pretend = Pretend::new(4);
    pretend.ok(&["move", "--to", &bed.base()]);
    let conf = fs::read_to_string(pretend.fleet.path().join("fleet.conf")).unwrap();
    let conf = format!("{conf}MIG_DB_DIR='{}'\n", bed.base());
    pretend.fleet.write("fleet.conf", &conf);

    let mut killed = pretend.command(&["migrate", "--jobs", "2"]);
    let mut killed = killed.stderr(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let store = bed.open();
    while states(store.as_ref())
        .iter()
        .all(|(_, state)| *state != State::Tmp)
    {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();

    pretend.ok(&["migrate", "--jobs", "2", "--until-empty"]);
    let migrated = (0..4).map(|n| (format!("u{n}"), State::Process));
    assert_eq!(states(store.as_ref()), migrated.collect::<Vec<_>>());
    (0..4).for_each(|n| pretend.online(n));
    pretend.ok(&["check-done", "--until-empty"]);
    let done = (0..4).map(|n| (format!("u{n}"), State::Done));
    assert_eq!(states(store.as_ref()), done.collect::<Vec<_>>());
    for n in 0..4 {
        assert_eq!(pretend.orders(n), 1, "u{n}");
    }
    assert!(pretend.fleet.path().join("migdb-log/u0.jsonl").exists());
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let began = Instant::now();
    let ended = Fleet::new().migdb(&[
        "list",
        "--base",
        &format!("postgres://x@127.0.0.1:{port}/x"),
    ]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("no answer within 30 s"), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(90));
}
