//! SIGKILL at random moments, and at the worst ones.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::files;
use crate::scenario::Stage;
use crate::{Crossfield, Error, Scenario};

/// Kills of one run after which it is left alone.
const MOST: usize = 40;
/// How often it is looked whether something is being written.
const LOOK: Duration = Duration::from_micros(100);

/// What came of killing.
#[derive(Clone, Debug, Default)]
pub struct Kills {
    /// Processes that were killed.
    pub kills: usize,
    /// Kills that left a file which was being written.
    pub inside_a_write: usize,
    /// Kills that did so in a cache.
    pub inside_a_cache: usize,
    /// Runs that came to their end.
    pub runs: usize,
    /// Runs that were not continued, or whose end is not the undisturbed one: what is wrong.
    pub failures: Vec<String>,
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} inside a write, {} inside a cache; {} runs ended, {} otherwise than undisturbed",
            self.kills,
            self.inside_a_write,
            self.inside_a_cache,
            self.runs,
            self.failures.len()
        )
    }
}

/// When a process is killed.
enum Moment {
    After(Duration),
    /// While a file is being written: the `nth` time that one is seen, and a little later.
    InsideAWrite {
        nth: u32,
        later: Duration,
    },
}

/// Kills runs of a scenario until `count` processes were killed.
///
/// # Errors
/// What keeps the harness from going on; what goes wrong with runs is among the failures.
pub fn kill(
    scenario: &'static Scenario,
    crossfield: &Crossfield,
    count: usize,
    seed: u64,
) -> Result<Kills, Error> {
    let stage = Stage::new(scenario, crossfield)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut kills = Kills::default();
    while kills.kills < count {
        let place = stage.place("killed")?;
        let last = kills.kills + MOST.min(count - kills.kills);
        while kills.kills < last {
            let args = stage.next(&place)?;
            let moment = moment(&stage, &mut rng);
            let Some(outcome) = disturbed(&stage, &place, args, &moment)? else {
                kills.kills += 1;
                kills.inside_a_write += usize::from(files::has_part(&place));
                kills.inside_a_cache += usize::from(files::has_part(&place.join("cache")));
                continue;
            };
            if let Err(message) = outcome {
                kills
                    .failures
                    .push(format!("{}: {args}: {message}", scenario.name));
            }
            break;
        }
        // Whatever has happened to it, it comes to its end.
        let args = stage.next(&place)?;
        let outcome = match stage.scenario.goes_on {
            None if place.join("run/metrics.json").exists() => None,
            _ => Some(stage.crossfield.run(&place, args)?),
        };
        kills.runs += 1;
        let wrong = match outcome {
            Some(outcome) if !outcome.succeeded() => Some(outcome.text),
            _ => files::difference(&files::read(&place)?, &stage.undisturbed),
        };
        if let Some(wrong) = wrong {
            kills.failures.push(format!("{}: {wrong}", scenario.name));
        }
    }
    Ok(kills)
}

fn moment(stage: &Stage, rng: &mut ChaCha8Rng) -> Moment {
    if rng.random::<bool>() {
        return Moment::After(stage.duration.mul_f64(rng.random::<f64>()));
    }
    Moment::InsideAWrite {
        nth: rng.random_range(1..=6),
        later: match rng.random::<bool>() {
            true => Duration::ZERO,
            false => Duration::from_micros(rng.random_range(0..1500)),
        },
    }
}

/// Runs a command until it is killed (none) or ends by itself: well, or with what it said.
fn disturbed(
    stage: &Stage,
    place: &Path,
    args: &str,
    moment: &Moment,
) -> Result<Option<Result<(), String>>, Error> {
    let log = stage.log();
    let begin = Instant::now();
    let mut child = stage.crossfield.start(place, args, &log)?;
    let (mut seen, mut was_writing) = (0, false);
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io(place))? {
            if status.success() {
                return Ok(Some(Ok(())));
            }
            let said = std::fs::read_to_string(&log).map_err(Error::io(&log))?;
            return Ok(Some(Err(said)));
        }
        let is_time = match moment {
            Moment::After(after) => begin.elapsed() >= *after,
            Moment::InsideAWrite { nth, later } => {
                let writes = files::has_part(place);
                seen += u32::from(writes && !was_writing);
                was_writing = writes;
                if seen == *nth {
                    std::thread::sleep(*later);
                }
                seen == *nth
            }
        };
        if is_time {
            // It may have ended meanwhile; then there is nothing to kill.
            let _ = child.kill();
            let status = child.wait().map_err(Error::io(place))?;
            return Ok(status.success().then_some(Ok(())));
        }
        std::thread::sleep(LOOK);
    }
}
