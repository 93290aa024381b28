//! Threads of the pool that stay with the one that leads through a step, from one shared phase to the next.
//!
//! A sleeping thread takes longer to wake than most phases last, and a thread of the pool that finds nothing to do falls
//! asleep. So they are woken once, by the leader on its way into the first phase, and watch for the next one until the leader
//! is done, and for a while longer: mostly it soon begins with the next step. It never waits for one that has not come: it
//! works on all parts itself, and only those begun elsewhere must end.
//!
//! Work too short to wake anybody for may come again and again. How long it will go on nobody knows; so threads are woken when
//! they would already have saved what waking them takes, which never costs more than twice what knowing it would.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Cycles until a sleeping worker begins with what it is woken for: 28 microseconds by `benches/threads.rs`, on a virtual
/// machine (Zen 4, Linux).
const WAKE: f64 = 100_000.0;
/// What a thread must have to itself, so that by the time a second one has woken enough is left for both.
const WORTH: f64 = 0.6 * WAKE;
/// The same of one that is awake and watches.
const WORTH_AWAKE: f64 = 10_000.0;
/// Below so many cycles, one thread is enough, whatever the others do.
pub(crate) const ALONE: f64 = 2.0 * WORTH_AWAKE;
/// Cycles that one more thread would have to save without another leader being met, until it counts what it saves again.
const CROWDED: f64 = 10.0 * WAKE;
/// How long a thread watches a leader that does not lead: about as long as waking it again takes.
const LINGER: Duration = Duration::from_micros(100);
/// Looks at what the others do, until a thread offers its core to somebody else between them.
const LOOKS: usize = 100;

thread_local! {
    static LEADER: Leader = Leader { team: Arc::new(Team::new()), threads: Cell::new(0), missed: Cell::default() };
}

/// Threads with work that others could share.
static BUSY: Padded<AtomicUsize> = Padded(AtomicUsize::new(0));

/// Two cache lines, which are fetched together, so that nobody waits for what others write to another value.
#[repr(align(128))]
struct Padded<T>(T);

/// A thread that shares its work, with those that watch it.
struct Leader {
    team: Arc<Team>,
    /// How many may take part, this one included; 0 while it does not lead.
    threads: Cell<usize>,
    missed: Cell<Missed>,
}

/// Cycles that one more thread would have saved since then, had it been awake.
#[derive(Clone, Copy, Default)]
struct Missed {
    cycles: f64,
    since: Option<Instant>,
}

/// Runs `f`, which is predicted to take so many cycles alone, with as many threads at hand as are worth it for what it shares:
/// those that watch already, or else some of the pool that the caller stands in. Within another `lead`, with that one's.
pub(crate) fn lead<R>(cycles: f64, f: impl FnOnce() -> R) -> R {
    if cycles < ALONE || LEADER.with(|leader| leader.threads.get() > 0) {
        return f();
    }
    let _busy = Counted::new(&BUSY.0);
    let (threads, most) = LEADER.with(|leader| leader.plan(cycles));
    let result = lead_through(threads, most, f);
    LEADER.with(Leader::look_around);
    result
}

/// Runs `f` with up to so many threads at hand; others that watch still may stay if there are then at most `most`.
pub(crate) fn lead_through<R>(threads: usize, most: usize, f: impl FnOnce() -> R) -> R {
    /// Ends what the leader begins here.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            LEADER.with(|leader| leader.set(0, 0));
        }
    }
    let _end = End;
    LEADER.with(|leader| {
        leader.set(threads, most);
        leader.call(threads);
    });
    f()
}

/// Threads that this one leads, as far as they are worth it for work that takes so many cycles alone; itself at least.
pub(crate) fn worth(cycles: f64) -> usize {
    let worth = (cycles / WORTH_AWAKE) as usize;
    LEADER.with(|leader| {
        let threads = leader.threads.get();
        if (1..worth).contains(&threads) {
            leader.miss(cycles / threads as f64 - cycles / (threads + 1) as f64);
        }
        threads.min(worth).max(1)
    })
}

/// Threads that are worth it for work that takes so many cycles alone where none of them is awake: always the same in the same pool.
pub(crate) fn worth_waking(cycles: f64) -> usize {
    let worth = (cycles / WORTH) as usize;
    // The size of the pool is asked for only when it matters: asking starts rayon's global pool.
    if worth < 2 { 1 } else { worth.min(rayon::current_num_threads()) }
}

/// Runs all parts, on this thread and on those that it leads.
pub(super) fn share(parts: usize, run: &(dyn Fn(usize) + Sync)) {
    LEADER.with(|leader| leader.team.share(parts, run));
}

/// Cores that this process may use.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(usize::MAX, usize::from))
}

impl Leader {
    /// How many threads lead just now, this one included. What they have to share they would take from each other: if there are
    /// others, nobody is missed for a while.
    fn look_around(&self) -> usize {
        let leaders = BUSY.0.load(Ordering::Relaxed).max(1);
        if leaders > 1 {
            // (Before and after each work: of two leaders that take turns, one might meet the other only then.)
            self.missed.set(Missed { cycles: -CROWDED, since: None });
        }
        leaders
    }

    /// How many threads are worth it for work that takes so many cycles alone, and how many there may be.
    fn plan(&self, cycles: f64) -> (usize, usize) {
        // There are other threads like this one, and cores for all.
        let most = (cores() / self.look_around()).max(1);
        let woken = worth_waking(cycles);
        let here = 1 + self.team.crew.0.watching.load(Ordering::Relaxed);
        let worth_awake = (cycles / WORTH_AWAKE) as usize;
        let threads = woken.max(here.min(worth_awake));
        if threads < worth_awake.min(most) && self.has_missed() {
            // It will be here for what comes after this.
            self.call((threads + 1).min(rayon::current_num_threads()));
        }
        (threads.min(most), most)
    }

    /// Takes note of cycles that one more thread would have saved.
    fn miss(&self, cycles: f64) {
        let Missed { cycles: before, since } = self.missed.get();
        self.missed.set(Missed { cycles: before + cycles, since: since.or_else(|| Some(Instant::now())) });
    }

    /// Whether there were so many within so short a time that waking it is worth it for what will come.
    fn has_missed(&self) -> bool {
        let missed = self.missed.get();
        if missed.cycles < WAKE {
            return false;
        }
        self.missed.take();
        missed.since.is_some_and(|since| since.elapsed() < LINGER)
    }

    fn set(&self, threads: usize, most: usize) {
        self.threads.set(threads);
        self.team.board.0.most.store(most, Ordering::Relaxed);
    }

    /// Calls as many as are missing. The pool allocates something for each: not for those that are still here.
    fn call(&self, threads: usize) {
        let called = &self.team.crew.0.called;
        for _ in called.load(Ordering::Relaxed) + 1..threads {
            called.fetch_add(1, Ordering::Relaxed);
            let team = Arc::clone(&self.team);
            rayon::spawn(move || {
                let _called = Counted(&team.crew.0.called);
                // Nobody may have come, and the leader be done.
                if !LEADER.with(|leader| Arc::ptr_eq(&leader.team, &team)) {
                    team.watch();
                }
            });
        }
    }
}

/// What a leader and those that watch it know of each other.
struct Team {
    board: Padded<Board>,
    crew: Padded<Crew>,
}

/// What the leader writes.
struct Board {
    /// How many threads there may be, 0 while nobody leads.
    most: AtomicUsize,
    /// Odd while there is a job.
    turn: AtomicUsize,
    job: AtomicPtr<Job<'static>>,
}

/// What the others write: how many have been called, are here, and may be at the job.
struct Crew {
    called: AtomicUsize,
    watching: AtomicUsize,
    working: AtomicUsize,
}

/// Shared work: parts, each of which somebody takes: the leader the first, others the last. What a part reads is likely to be in
/// the cache of whoever had it before.
struct Job<'a> {
    taken: Padded<AtomicUsize>,
    /// How many the others have taken.
    last: Padded<AtomicUsize>,
    parts: usize,
    run: &'a (dyn Fn(usize) + Sync),
}

impl Job<'_> {
    /// Takes parts until none is left.
    fn work(&self, leads: bool) {
        let mut first = 0;
        while self.taken.0.fetch_add(1, Ordering::Relaxed) < self.parts {
            if leads {
                (self.run)(first);
                first += 1;
            } else {
                (self.run)(self.parts - 1 - self.last.0.fetch_add(1, Ordering::Relaxed));
            }
        }
    }
}

/// Counts a thread in, as long as this lives.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Team {
    fn new() -> Team {
        let zero = || AtomicUsize::new(0);
        Team {
            board: Padded(Board { most: zero(), turn: zero(), job: AtomicPtr::new(ptr::null_mut()) }),
            crew: Padded(Crew { called: zero(), watching: zero(), working: zero() }),
        }
    }

    fn share(&self, parts: usize, run: &(dyn Fn(usize) + Sync)) {
        struct Close<'a>(&'a Team);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.board.0.turn.fetch_add(1, Ordering::SeqCst);
                let mut looks = 0;
                while self.0.crew.0.working.load(Ordering::SeqCst) > 0 {
                    pause(&mut looks);
                }
            }
        }
        let Padded(board) = &self.board;
        let zero = || Padded(AtomicUsize::new(0));
        let job = Job { taken: zero(), last: zero(), parts, run };
        board.job.store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        board.turn.fetch_add(1, Ordering::SeqCst);
        let _close = Close(self);
        job.work(true);
    }

    /// Takes part in every job, until the leader has not led for long or may have fewer.
    fn watch(&self) {
        let Team { board: Padded(board), crew: Padded(crew) } = self;
        let _watching = Counted::new(&crew.watching);
        let (mut seen, mut looks, mut idle) = (0, 0, None);
        loop {
            let (turn, most) = (board.turn.load(Ordering::Relaxed), board.most.load(Ordering::Relaxed));
            if turn % 2 == 1 && turn != seen {
                let _working = Counted::new(&crew.working);
                if board.turn.load(Ordering::SeqCst) == turn {
                    // SAFETY: the job is on the stack of the leader, in `share`, which closes the turn and then waits until
                    // nobody is working before it returns. The turn was still open after this thread was counted in, and
                    // all of this is in one order: so the leader will see it counted.
                    unsafe { &*board.job.load(Ordering::Relaxed) }.work(false);
                }
                (seen, looks, idle) = (turn, 0, None);
            } else if most > 0 {
                if crew.watching.load(Ordering::Relaxed) >= most {
                    return;
                }
                // Between phases others may need this thread: whoever shares the pool with a leader must get on.
                if looks % LOOKS == 0 {
                    rayon::yield_now();
                }
                pause(&mut looks);
                idle = None;
            } else if idle.get_or_insert_with(Instant::now).elapsed() >= LINGER {
                return;
            } else {
                rayon::yield_now();
                std::hint::spin_loop();
            }
        }
    }
}

/// Passes a moment: at first on this core, later by letting others have it.
fn pause(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Phases in which each part counts how often it is run.
    fn phases(count: usize) {
        for parts in (0..count).map(|phase| phase % 23) {
            let runs: Vec<_> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            share(parts, &|part| {
                runs[part].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.into_iter().all(|runs| runs.into_inner() == 1), "each of {parts} parts once");
        }
    }

    const PHASES: usize = if cfg!(miri) { 30 } else { 3000 };

    #[test]
    fn each_part_is_run_once() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads can be started");
        for threads in [1, 2, 4, 9] {
            let lead = || lead_through(threads, usize::MAX, || phases(PHASES));
            pool.install(lead);
            lead();
            // By leaders beside one another, which share the pool.
            std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(lead))));
        }
    }

    #[test]
    fn threads_leave_in_the_end() {
        lead_through(4, usize::MAX, || phases(PHASES));
        let crew = LEADER.with(|leader| Arc::clone(&leader.team));
        while crew.crew.0.called.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(crew.crew.0.watching.load(Ordering::Relaxed), 0);
    }

    /// With one thread more than there may be, one leaves, and those that stay go on.
    #[test]
    fn others_that_are_too_many_leave() {
        lead_through(3, usize::MAX, || phases(PHASES));
        lead_through(3, 1, || {
            let watching = || LEADER.with(|leader| leader.team.crew.0.watching.load(Ordering::Relaxed));
            while watching() > 0 {
                std::thread::yield_now();
            }
            phases(PHASES);
        });
    }

    /// Work of others in the same pool is done while a leader keeps all of its threads.
    #[test]
    fn others_have_their_turn() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads can be started");
        let (turns, begin) = (AtomicUsize::new(0), Instant::now());
        let (leading, done) = (&AtomicUsize::new(0), &turns);
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| {
                lead_through(9, usize::MAX, || {
                    while done.load(Ordering::Relaxed) < 10 && begin.elapsed() < Duration::from_secs(20) {
                        phases(100);
                        leading.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
            while leading.load(Ordering::Relaxed) < 10 {
                std::thread::yield_now();
            }
            for _ in 0..10 {
                scope.spawn(|_| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert!(begin.elapsed() < Duration::from_secs(20), "they waited for the leader");
    }

    /// Threads called for by this one's team that have not left.
    fn called() -> usize {
        LEADER.with(|leader| leader.team.crew.0.called.load(Ordering::Relaxed))
    }

    /// Work of so many cycles that others could share, in phases of so many.
    fn work(cycles: f64, phase: f64) {
        lead(cycles, || worth(phase));
    }

    #[test]
    fn short_work_calls_others_when_it_comes_often() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
        pool.install(|| {
            let begin = Instant::now();
            // Four times are enough, unless something else has this core in between, or leads.
            while cores() > 1 && called() == 0 {
                assert!(begin.elapsed() < Duration::from_secs(20), "nobody was called");
                work(WAKE / 2.0, WAKE / 2.0);
            }
        });
    }

    #[test]
    fn short_work_calls_nobody_when_it_comes_rarely_or_is_not_shared() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
        pool.install(|| {
            for _ in 0..20 {
                work(WAKE / 2.0, WAKE / 2.0);
                assert_eq!(called(), 0, "for work that is far apart");
                std::thread::sleep(LINGER);
            }
            for _ in 0..1000 {
                work(WAKE / 2.0, WORTH_AWAKE);
            }
            assert_eq!(called(), 0, "for phases that are too short");
        });
    }

    #[test]
    fn short_work_calls_nobody_beside_another_leader() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
        let (leads, done) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let come = |flag: &AtomicUsize| {
            while flag.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                lead(ALONE, || {
                    leads.store(1, Ordering::Relaxed);
                    come(done);
                });
                leads.store(0, Ordering::Relaxed);
            });
            pool.install(|| {
                come(leads);
                (0..100).for_each(|_| work(WAKE / 2.0, WAKE / 2.0));
                let called_beside = called();
                done.store(1, Ordering::Relaxed);
                assert_eq!(called_beside, 0, "beside it");
                while leads.load(Ordering::Relaxed) > 0 {
                    std::thread::yield_now();
                }
                (0..10).for_each(|_| work(WAKE / 2.0, WAKE / 2.0));
                assert_eq!(called(), 0, "soon after it");
            });
        });
    }

    #[test]
    fn a_panic_ends_the_lead() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be started");
        let led = || LEADER.with(|leader| leader.threads.get());
        pool.install(|| {
            let broken = catch_unwind(AssertUnwindSafe(|| {
                lead_through(2, usize::MAX, || share(1000, &|_| assert_eq!(led(), 0, "on purpose")));
            }));
            assert!(broken.is_err(), "the leader has taken a part");
            assert_eq!(led(), 0);
            lead_through(2, usize::MAX, || phases(PHASES));
        });
    }
}
