//! How far it is, and that it stops at once when somebody wants it to.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::rc::Rc;

use balena_migrate::extract::open::Notice;
use balena_migrate::extract::pack::Packing;
use balena_migrate::extract::take::take;
use balena_migrate::extract::wanted::{Item, Target, Wanted};
use balena_migrate::extract::{find, list};
use balena_migrate::sys::Sys;
use tempfile::tempdir;

use super::flasher::{MIB, modern, modern_os, packed};

/// Writes down what it is told, and may stop it when it hears of something.
#[derive(Default)]
struct Record {
    told: RefCell<Vec<(&'static str, u64, Option<u64>)>>,
    stop_at: Option<&'static str>,
}

impl Notice for Record {
    fn tell(&self, _: String) {}

    fn at(&self, what: &'static str, bytes: u64, total: Option<u64>) -> io::Result<()> {
        self.told.borrow_mut().push((what, bytes, total));
        match self.stop_at == Some(what) {
            true => Err(io::Error::other("stopped")),
            false => Ok(()),
        }
    }
}

fn wanted(out: &str, image: bool) -> Wanted {
    let target = Target::File(out.to_owned());
    Wanted {
        img: image.then(|| target.clone()),
        packing: Packing::Gz,
        items: match image {
            true => Vec::new(),
            false => vec![(Item::BalenaCfg, target)],
        },
        all: None,
        config: None,
        home: None,
        force: false,
    }
}

#[test]
fn what_takes_time_tells_how_far_it_is_and_can_be_stopped() {
    let boot = vec![
        ("balena-image-flasher", Vec::new()),
        ("config.json", b"{}".to_vec()),
    ];
    let flasher = super::flasher::Flasher {
        boot,
        ..super::flasher::Flasher::modern(vec![(super::flasher::PAYLOAD, modern_os().to_vec())])
    };
    let flasher = flasher.build();
    let sys = Sys::new("/");
    let image = Some(25 * MIB as u64);
    let whole = Some(58 * MIB as u64);
    for (what, bytes, format, phases) in [
        // The size of a gzip file is known, that of what is in it is not.
        ("OS image", modern_os(), "gz", &[("extracting", None)][..]),
        (
            "flasher",
            &flasher,
            "zip",
            &[
                ("looking into it", None),
                ("extracting", image),
                ("checking the rest", whole),
            ],
        ),
        (
            "flasher",
            &flasher,
            "gz",
            &[("extracting", image), ("checking the rest", None)],
        ),
        (
            "flasher",
            &flasher,
            "stored.zip",
            &[("checking", whole), ("extracting", image)],
        ),
        (
            "flasher",
            &flasher,
            "xz",
            &[
                ("measuring", None),
                ("unpacking", whole),
                ("extracting", image),
            ],
        ),
    ] {
        let dir = tempdir().unwrap();
        let file = packed(dir.path(), bytes, format);
        let file_bytes = fs::metadata(&file).unwrap().len();
        let out = dir.path().join("os.gz");
        let wanted = wanted(out.to_str().unwrap(), true);
        let record = Rc::new(Record::default());
        let notice: Rc<dyn Notice> = record.clone();
        take(&sys, &file, &wanted, &notice).map(drop).unwrap();
        fs::remove_file(&out).unwrap();
        fs::remove_file(dir.path().join("checksums.sha256")).unwrap();
        for (phase, total) in phases {
            let told = record.told.borrow();
            let told: Vec<_> = told.iter().filter(|(known, ..)| known == phase).collect();
            assert!(!told.is_empty(), "{what}.{format}: nothing of {phase}");
            assert!(
                told.is_sorted_by_key(|(_, bytes, _)| *bytes),
                "{what}.{format}: {phase}"
            );
            let (_, bytes, last) = told.last().unwrap();
            if *phase == "looking into it" {
                assert_eq!(*last, None);
                continue;
            }
            let total = total.unwrap_or(file_bytes);
            assert_eq!(*last, Some(total), "{what}.{format}: {phase}");
            assert!(
                *bytes <= total && *bytes > total / 2,
                "{what}.{format}: {phase} {bytes}"
            );
        }
        for (phase, _) in phases {
            let notice: Rc<dyn Notice> = Rc::new(Record {
                stop_at: Some(phase),
                ..Record::default()
            });
            let stopped = take(&sys, &file, &wanted, &notice).map(drop).unwrap_err();
            let message = format!("{stopped:#}");
            assert!(
                message.ends_with("stopped"),
                "{what}.{format}: {phase}: {message}"
            );
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                1,
                "{what}.{format}: {phase}"
            );
        }
    }
}

#[test]
fn what_is_read_for_a_small_file_or_a_list_alone_is_told_too() {
    let dir = tempdir().unwrap();
    let sys = Sys::new("/");
    let file = packed(dir.path(), modern(), "gz");
    let record = Rc::new(Record::default());
    let notice: Rc<dyn Notice> = record.clone();
    let found = find(&sys, &file, &notice).unwrap();
    list::list("x", &found, &*notice).unwrap();
    let has = |what: &str| {
        record
            .told
            .borrow()
            .iter()
            .any(|(known, ..)| *known == what)
    };
    assert!(has("looking into it") && has("checking the rest"));
    let stop: Rc<dyn Notice> = Rc::new(Record {
        stop_at: Some("checking the rest"),
        ..Record::default()
    });
    let found = find(&sys, &file, &stop).unwrap();
    let error = list::list("x", &found, &*stop).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "stopped");
    let out = dir.path().join("config.json");
    let none = take(&sys, &file, &wanted(out.to_str().unwrap(), false), &notice);
    let message = format!("{:#}", none.map(drop).unwrap_err());
    assert!(message.contains("has no config.json"), "{message}");
}
