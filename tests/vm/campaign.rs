//! The campaign of power cuts: one migration whose every write is logged, and then the machine
//! switched on with the disk as a cut at this or that write would have left it.
//!
//! `util/campaign` runs the long one. What is random comes from a seed, so that a state can be made
//! again: from the kept log of the latest migration with `--again`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::harness::board::{Board, Firmware};
use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::machine::copy_sparse;
use crate::harness::migratecfg::PLACE;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::writelog::{Replay, WriteLog};
use crate::harness::{Machine, Migratecfg, OsImage, cache};
use crate::scenarios::RUN;

/// Whether a flash that was cut off has to go on at the next start.
const RESUMABLE: bool = true;

/// Where in the migration a cut falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Phase {
    /// Stage 1, up to its end.
    Arming,
    /// Shutdown of the old system and start of stage 2.
    Armed,
    /// Stage 2 up to the write that makes the way back impossible.
    BeforeTheFirstWrite,
    /// The record, then the boot code of sector 0.
    Rearm,
    Overwrite,
    Finish,
    /// The last write of sector 0, up to its flush.
    Commit,
    /// The new system is there.
    After,
}

impl Phase {
    /// How many states of a campaign fall into it, in proportion.
    fn weight(self) -> usize {
        match self {
            Phase::Overwrite => 10,
            Phase::Finish => 6,
            Phase::Rearm | Phase::Commit => 4,
            Phase::BeforeTheFirstWrite => 3,
            // A boot of the old system takes longest.
            Phase::Arming | Phase::Armed | Phase::After => 2,
        }
    }

    /// Whether a cut in it must not lose the machine.
    fn is_safe(self, resumable: bool) -> bool {
        match self {
            Phase::Arming | Phase::Armed | Phase::BeforeTheFirstWrite | Phase::After => true,
            Phase::Rearm | Phase::Overwrite | Phase::Finish | Phase::Commit => resumable,
        }
    }
}

/// A machine with UEFI firmware.
const GPT: Guest = Guest {
    tree: Tree::Standard,
    root: Root::Ext4,
};

/// A logged migration, kept in a directory of the cache.
struct Logged {
    dir: PathBuf,
    about: About,
}

#[derive(Serialize, Deserialize)]
struct About {
    /// The phases with their first entries, in order.
    begins: Vec<(usize, Phase)>,
    entries: usize,
    /// What the new system says.
    facts: Vec<String>,
}

impl Logged {
    fn base(&self) -> PathBuf {
        self.dir.join("base.raw")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("writes.log")
    }

    /// The latest one, if there is one.
    fn latest(dir: PathBuf) -> Option<Logged> {
        let about = fs::read(dir.join("about.json")).ok()?;
        let about = serde_json::from_slice(&about).expect("about.json is of this version");
        Some(Logged { dir, about })
    }

    /// Migrates a machine and keeps what it wrote.
    fn record(name: &str, firmware: Firmware, dir: PathBuf) -> (Logged, Machine) {
        let (machine, image) = match firmware {
            Firmware::Bios => (Machine::running_guest(name), OsImage::get()),
            Firmware::Uefi => (
                Machine::of(name, GPT, Board::UEFI),
                OsImage::with_standard_kernel(),
            ),
        };
        let cfg = Migratecfg::new(&image).backing_up();
        let mut vm = machine.logging_writes().start();
        vm.wait_agent();
        cfg.send_to(&mut vm);
        vm.must("sync");
        let mut log = vm.writes();
        let mut begins = vec![(log.read_on(), Phase::Arming)];
        vm.must(&format!("cd {PLACE} && {RUN} -r 3"));
        begins.push((log.read_on(), Phase::Armed));
        vm.wait_for("balena-migrate, stage 2");
        let stage_2 = log.read_on();
        begins.push((stage_2, Phase::BeforeTheFirstWrite));
        vm.wait_for("== finish: ");
        begins.push((log.read_on(), Phase::Finish));
        vm.wait_for("reboot: Restarting system");
        vm.wait_for("NEWOS: done");
        let facts = NewSystem::as_in(&vm.console());
        let config = format!("NEWOS: config.json {}", cfg.config_json_sha256());
        assert!(facts.facts().contains(&config), "{:?}", facts.facts());
        let machine = vm.wait_off();
        let entries = log.read_on();
        assert!(log.is_sound(), "this is no log of writes");
        begins.extend(writes_of_sector_0(&log, stage_2));
        begins.sort();

        let about = About {
            begins,
            entries,
            facts: facts.facts().to_vec(),
        };
        let (base, writes) = machine.writes();
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("making the campaign's directory");
        let logged = Logged { dir, about };
        copy_sparse(&base, &logged.base());
        copy_sparse(&writes, &logged.log());
        let about = serde_json::to_vec_pretty(&logged.about).expect("plain data serialises");
        fs::write(logged.dir.join("about.json"), about).expect("keeping what is known of the run");
        (logged, machine)
    }

    fn phase(&self, entries: usize) -> Phase {
        let begins = self.about.begins.iter().rev();
        // The write that begins a phase is issued only in the state behind it.
        let mut begun = begins.filter(|(first, _)| *first < entries);
        begun.next().map_or(Phase::Arming, |(_, phase)| *phase)
    }

    /// The entries after which to cut: about `wanted`, spread over the phases by `seed`.
    fn cuts(&self, wanted: usize, seed: u64) -> Vec<usize> {
        let first = self.about.begins[0].0 + 1;
        let mut by_phase = BTreeMap::<Phase, Vec<usize>>::new();
        for entries in first..=self.about.entries {
            by_phase
                .entry(self.phase(entries))
                .or_default()
                .push(entries);
        }
        let mut dice = fastrand::Rng::with_seed(seed);
        by_phase.values_mut().for_each(|cuts| dice.shuffle(cuts));
        let mut cuts = Vec::new();
        // Each turn goes to the phase that is furthest behind its share.
        let mut taken = BTreeMap::<Phase, usize>::new();
        while cuts.len() < wanted {
            let next = by_phase
                .iter_mut()
                .filter(|(_, left)| !left.is_empty())
                .min_by_key(|(phase, _)| {
                    (taken.get(phase).unwrap_or(&0) + 1) * 1000 / phase.weight()
                });
            let Some((phase, left)) = next else { break };
            *taken.entry(*phase).or_default() += 1;
            cuts.extend(left.pop());
        }
        cuts.sort_unstable();
        cuts
    }
}

/// What the writes of sector 0 by stage 2 tell of its phases: the first one is the point of no
/// return, the last one makes the new system.
fn writes_of_sector_0(log: &WriteLog, from: usize) -> [(usize, Phase); 4] {
    let entries = &log.entries;
    let touches: Vec<usize> = (from..entries.len())
        .filter(|n| entries[*n].writes(0))
        .collect();
    let [first, .., last] = touches[..] else {
        panic!("sector 0 is not written twice in stage 2: {touches:?}");
    };
    let flush_after = |n: usize| {
        let flush = (n..entries.len()).find(|n| entries[*n].flushes());
        flush.map_or(entries.len(), |n| n + 1)
    };
    // The boot code is one sector, at most written with its page, and the record and its flush come before it. Without them the
    // flash begins with longer writes.
    let (rearm, overwrite) = match entries[first].sectors {
        1..=8 => (first.saturating_sub(2).max(from), flush_after(first)),
        _ => (first, first),
    };
    [
        (rearm, Phase::Rearm),
        (overwrite, Phase::Overwrite),
        (last, Phase::Commit),
        (flush_after(last), Phase::After),
    ]
}

/// What came of one cut.
struct Cut {
    phase: Phase,
    entries: usize,
    outcome: Outcome,
}

/// Boots the machine with each of the states; every `to_the_end`th that resumes has to finish.
fn cut_power(
    logged: &Logged,
    mut machine: Machine,
    states: usize,
    seed: u64,
    to_the_end: usize,
) -> Vec<Cut> {
    let wanted = NewSystem::of(logged.about.facts.clone());
    let durable = machine.dir().join("durable.raw");
    let mut replay = Replay::new(WriteLog::open(&logged.log()), &logged.base(), durable);
    let state = machine.dir().join("state.raw");
    let cuts = logged.cuts(states, seed);
    let mut done = Vec::new();
    let mut flashing = 0;
    for (n, &entries) in cuts.iter().enumerate() {
        let start = Instant::now();
        let phase = logged.phase(entries);
        let unflushed = replay.state(entries, seed ^ entries as u64, &state);
        if phase >= Phase::Armed && phase < Phase::After {
            flashing += 1;
        }
        let finish = flashing % to_the_end == 0;
        // Firmware may lose what it was told.
        let vm = machine
            .holding(&state)
            .without_variables()
            .talkative()
            .start();
        let (off, outcome) = vm.outcome(&wanted, finish);
        machine = off;
        println!(
            "{:3} of {}: {phase:?}, {entries} of {} entries ({} unflushed there, {} torn, {} not): \
             {outcome} ({:.0} s)",
            n + 1,
            cuts.len(),
            logged.about.entries,
            unflushed.whole,
            unflushed.torn,
            unflushed.lost,
            start.elapsed().as_secs_f32(),
        );
        if matches!(outcome, Outcome::Lost(_)) {
            machine.keep_log(&format!("lost-at-{entries}"));
        }
        done.push(Cut {
            phase,
            entries,
            outcome,
        });
    }
    done
}

/// Phases by outcomes, as Markdown.
fn table(cuts: &[Cut]) -> String {
    let mut rows = BTreeMap::<Phase, [usize; 6]>::new();
    for cut in cuts {
        let column = match cut.outcome {
            Outcome::Old => 0,
            Outcome::New => 1,
            Outcome::Resumed => 2,
            Outcome::ResumedToTheEnd => 3,
            Outcome::Held(_) => 4,
            Outcome::Lost(_) => 5,
        };
        rows.entry(cut.phase).or_default()[column] += 1;
    }
    let mut text =
        "| power cut in | cuts | old system | new system | resumed | resumed, to the end \
         | held | lost |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (phase, counts) in rows {
        let sum: usize = counts.iter().sum();
        let counts = counts.map(|n| n.to_string()).join(" | ");
        let _ = writeln!(text, "| {phase:?} | {sum} | {counts} |");
    }
    text
}

/// Fails when a cut lost the machine where it must not.
fn judge(cuts: &[Cut], resumable: bool) {
    let lost: Vec<String> = cuts
        .iter()
        .filter(|cut| {
            cut.phase.is_safe(resumable) && matches!(cut.outcome, Outcome::Lost(_))
                // A flash that can be resumed goes on.
                || resumable && matches!(cut.outcome, Outcome::Held(_))
        })
        .map(|cut| {
            format!(
                "{:?} after entry {}: {}",
                cut.phase, cut.entries, cut.outcome
            )
        })
        .collect();
    assert!(lost.is_empty(), "machines are lost: {lost:#?}");
}

/// What is cut, how often, and how it is judged.
struct Campaign<'a> {
    name: &'a str,
    firmware: Firmware,
    /// Where the log of the writes is kept.
    kept: PathBuf,
    states: usize,
    seed: u64,
    to_the_end: usize,
    /// With the log of the latest one.
    again: bool,
}

fn run(campaign: Campaign) {
    let Campaign {
        name,
        firmware,
        kept,
        states,
        seed,
        to_the_end,
        again,
    } = campaign;
    let latest = again.then(|| Logged::latest(kept.clone())).flatten();
    let (logged, machine) = match latest {
        Some(logged) => {
            let board = Board {
                firmware,
                ..Board::default()
            };
            let machine = Machine::with_image(name, &logged.base()).on(board);
            (logged, machine)
        }
        None => Logged::record(name, firmware, kept),
    };
    println!("seed {seed}, {} entries", logged.about.entries);
    println!("phases begin at {:?}", logged.about.begins);
    let cuts = cut_power(&logged, machine, states, seed, to_the_end);
    println!("\n{}", table(&cuts));
    judge(&cuts, RESUMABLE);
}

/// A handful of cuts, for every change.
#[test]
fn a_power_cut_at_some_writes() {
    run(Campaign {
        name: "cuts",
        firmware: Firmware::Bios,
        kept: cache::subdir("tmp").join("cuts"),
        states: 4,
        seed: 4,
        to_the_end: 2,
        again: false,
    });
}

/// The same by UEFI firmware that has lost its variables each time.
#[test]
#[ignore = "long: a minute for each state"]
fn a_power_cut_at_some_writes_with_uefi_firmware() {
    run(Campaign {
        name: "cuts-uefi",
        firmware: Firmware::Uefi,
        kept: cache::subdir("tmp").join("cuts-uefi"),
        states: 5,
        seed: 4,
        to_the_end: 2,
        again: false,
    });
}

/// The long campaign: `util/campaign [--uefi] [--again] [STATES] [SEED]`.
#[test]
#[ignore = "long: half a minute for each state"]
fn campaign() {
    let number = |name: &str, or: u64| {
        std::env::var(name).map_or(or, |text| {
            text.parse()
                .unwrap_or_else(|e| panic!("{name}={text}: {e}"))
        })
    };
    let (name, firmware) = match number("CAMPAIGN_UEFI", 0) {
        0 => ("campaign", Firmware::Bios),
        _ => ("campaign-uefi", Firmware::Uefi),
    };
    run(Campaign {
        name,
        firmware,
        kept: cache::subdir(name),
        states: number("CAMPAIGN_STATES", 40) as usize,
        seed: number("CAMPAIGN_SEED", 1),
        to_the_end: number("CAMPAIGN_TO_THE_END", 4) as usize,
        again: number("CAMPAIGN_AGAIN", 0) != 0,
    });
}
