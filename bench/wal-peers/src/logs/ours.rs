//! Our log as a library, for threads that block: what a shard does on its reactor, done by two
//! committing threads.
//!
//! ```text
//!   appender:  lock, append, unlock, sleep on the group's word
//!   committer: lock, seal, unlock, write durably, lock, durable prefix, unlock, rouse the other committer, wake
//! ```
//!
//! Records count as applied when they are durable. A keeper thread prepares and recycles segments
//! meanwhile, as it does in the gateway.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prism_wal::cipher::SecretKey;
use prism_wal::cursor::{Checkpoint, Recycler};
use prism_wal::disk::file::{FileDisk, LogFile};
use prism_wal::group_commit::{AppendError, ClosedSegment, Config, GroupCommit, WriteAction};
use prism_wal::ids::{Epoch, LaneId, Lsn, SegmentNumber, TargetId};
use prism_wal::pool::{Durable, Pool, Prepared};
use prism_wal::record::{Record, RecordKind};
use prism_wal::recovery::Visitor;
use prism_wal::segment::SegmentSeed;
use prism_wal::start::{StartConfig, start};
use rustix::thread::futex;

use super::{Failure, Log};

const COMMITTERS: usize = 2;
/// Words that sleepers wait on: those of one group on one, so that a group's end wakes nobody else.
/// More than there can be groups on their way, or some wake in vain.
const WORDS: usize = 32;
const READY_SEGMENTS: usize = 2;
const TARGET: TargetId = TargetId(1);

pub(crate) struct Ours {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// For committers that have nothing to do.
    work: Condvar,
    durable: AtomicU64,
    words: [AtomicU32; WORDS],
    poisoned: AtomicBool,
    began: Instant,
}

struct State {
    commit: GroupCommit,
    /// Files of the segments that are written or ready, oldest first.
    files: VecDeque<(SegmentNumber, LogFile)>,
    recycler: Recycler,
    /// The word for records of the open group.
    word: usize,
    /// Last record that the sleepers of each word wait for, oldest first.
    sleepers: VecDeque<(Lsn, usize)>,
    idle_committers: usize,
    /// Records in the group that became durable last.
    last_records: u64,
    preparing: usize,
    keeper: Option<Sender<Job>>,
    closing: bool,
}

enum Job {
    Prepare(Durable),
    Recycle(ClosedSegment, Durable),
}

struct Nobody;

impl Visitor for Nobody {
    fn record(&mut self, _: Epoch, _: Lsn, _: &Record<'_>) {}
}

impl Ours {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let config = StartConfig {
            lane: LaneId(1),
            group: Config {
                depth_max: COMMITTERS,
                ..Config::default()
            },
            segments_max: 64,
            key: None,
            expect_existing: false,
            applied_lsn: Lsn::NONE,
            accept_loss: false,
        };
        let disk = FileDisk::open(path, true)?;
        let started = start(&config, disk, &seed()?, 0, &mut Nobody)?;
        let (keeper, jobs) = channel();
        let shared = Arc::new(Shared {
            durable: AtomicU64::new(started.commit.durable_lsn().0),
            state: Mutex::new(State {
                commit: started.commit,
                files: VecDeque::from([(started.active.ready.segment, started.active.file)]),
                recycler: Recycler::default(),
                word: 0,
                sleepers: VecDeque::new(),
                idle_committers: 0,
                last_records: 0,
                preparing: 0,
                keeper: Some(keeper),
                closing: false,
            }),
            work: Condvar::new(),
            words: [const { AtomicU32::new(0) }; WORDS],
            poisoned: AtomicBool::new(false),
            began: Instant::now(),
        });
        let mut threads = Vec::new();
        for _ in 0..COMMITTERS {
            let shared = Arc::clone(&shared);
            threads.push(thread::Builder::new().spawn(move || shared.commit())?);
        }
        let keeper = Arc::clone(&shared);
        threads.push(thread::Builder::new().spawn(move || keeper.keep(started.pool, &jobs))?);
        shared.lock().ask_for_segments();
        Ok(Self { shared, threads })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.keeper = None;
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // They do not panic; if one did, the process is about to end anyway.
            let _ = thread.join();
        }
    }
}

impl Log for Ours {
    fn append(&self, _: usize, payload: &[u8]) -> Result<(), Failure> {
        let shared = &*self.shared;
        let (lsn, word) = shared.enter(payload)?;
        while shared.durable.load(Ordering::Acquire) < lsn.0 {
            let seen = shared.words[word].load(Ordering::Acquire);
            if shared.durable.load(Ordering::Acquire) >= lsn.0 {
                break;
            }
            if shared.poisoned.load(Ordering::Acquire) {
                return Err("the lane is poisoned".into());
            }
            // Interrupted, or the word has changed: the loop looks again.
            let _ = futex::wait(&shared.words[word], futex::Flags::PRIVATE, seen, None);
        }
        Ok(())
    }

    fn tidy(&self) -> Result<(), Failure> {
        // The keeper may lag; the next measurement should not begin with its backlog.
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.shared.lock().preparing > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Appends a record; returns its number and the word to sleep on.
    fn enter(&self, payload: &[u8]) -> Result<(Lsn, usize), Failure> {
        let record = Record {
            kind: RecordKind::Strong,
            target: TARGET,
            payload,
        };
        loop {
            let mut state = self.lock();
            match state.commit.append(self.now(), &record) {
                Ok(lsn) => {
                    let word = state.word;
                    // Alone with the log: then the record's own thread writes it, which saves two
                    // switches of threads.
                    if state.last_records <= 1 && state.commit.in_flight() == 0 {
                        if let Some(action) = state.next_write(self.now()) {
                            drop(self.write(state, action));
                        }
                        return Ok((lsn, word));
                    }
                    let wanted = state.idle_committers > 0 && state.commit.in_flight() < state.commit.depth();
                    drop(state);
                    if wanted {
                        self.work.notify_one();
                    }
                    return Ok((lsn, word));
                }
                Err(AppendError::Full | AppendError::NoSegment | AppendError::Stalled) => {
                    drop(state);
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A committing thread: seals, writes, tells.
    fn commit(&self) {
        let mut state = self.lock();
        loop {
            let Some(action) = state.next_write(self.now()) else {
                if state.closing {
                    return;
                }
                state.idle_committers += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle_committers -= 1;
                continue;
            };
            state = self.write(state, action);
        }
    }

    /// Writes a group durably, and wakes the threads that wait for it.
    fn write<'a>(&'a self, state: MutexGuard<'a, State>, action: WriteAction) -> MutexGuard<'a, State> {
        let file = state.file(action.segment);
        drop(state);
        let result = file.write_durable(action.offset(), action.bytes());
        drop(file);
        let mut state = self.lock();
        state
            .commit
            .handle_completion(self.now(), action.group, result, action.buffer);
        let woken = state.handle_progress(self);
        // Before anybody is woken: who wakes appends again, and the next group is to be on its way
        // by then.
        let more = state.idle_committers > 0 && state.commit.pending_bytes() > 0;
        drop(state);
        if more {
            self.work.notify_one();
        }
        self.wake(woken);
        self.lock()
    }

    /// Wakes all that sleep on the words of the set.
    fn wake(&self, mut words: u32) {
        while words != 0 {
            let word = &self.words[words.trailing_zeros() as usize];
            word.fetch_add(1, Ordering::Release);
            // Cannot fail on a word of this process.
            let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
            words &= words - 1;
        }
    }

    /// The keeper's thread.
    fn keep(&self, mut pool: Pool<FileDisk>, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Prepare(durable) => {
                    let prepared =
                        seed().and_then(|seed| pool.prepare(&seed, 0, durable).map_err(Failure::from));
                    let mut state = self.lock();
                    state.preparing -= 1;
                    match prepared {
                        Ok(prepared) => state.handle_segment(prepared),
                        Err(error) => eprintln!("prism: no segment: {error}"),
                    }
                }
                Job::Recycle(segment, durable) => {
                    if let Err(error) = pool.recycle(segment, durable) {
                        eprintln!("prism: not recycled: {error}");
                    }
                }
            }
            self.work.notify_one();
        }
    }
}

impl State {
    fn next_write(&mut self, now: u64) -> Option<WriteAction> {
        let action = self.commit.poll_action(now)?;
        // What is appended from here on is in a later group. (A full group may have left others
        // after it; they then wake together with the last of them.)
        self.sleepers.push_back((self.commit.appended_lsn(), self.word));
        self.word = (self.word + 1) % WORDS;
        Some(action)
    }

    fn file(&self, segment: SegmentNumber) -> LogFile {
        let found = self.files.iter().find(|(number, _)| *number == segment);
        found
            .expect("a segment is written only after its file came")
            .1
            .clone()
    }

    /// After a completion: publishes the durable prefix, and returns the set of words to wake.
    fn handle_progress(&mut self, shared: &Shared) -> u32 {
        if self.commit.poisoned().is_some() {
            shared.poisoned.store(true, Ordering::Release);
            return u32::MAX;
        }
        let durable = self.commit.durable_lsn();
        let before = shared.durable.swap(durable.0, Ordering::Release);
        self.last_records = durable.0 - before;
        let mut woken = 0;
        while let Some((last, word)) = self.sleepers.front()
            && *last <= durable
        {
            woken |= 1 << word;
            self.sleepers.pop_front();
        }
        while let Some(closed) = self.commit.poll_closed() {
            self.files.retain(|(segment, _)| *segment > closed.segment);
            self.recycler.handle_closed(closed);
            self.checkpoint(shared.now());
        }
        self.recycler.handle_durable(durable);
        let known = self.durable();
        while let Some(segment) = self.recycler.poll_recyclable() {
            self.tell_keeper(Job::Recycle(segment, known));
        }
        self.ask_for_segments();
        woken
    }

    /// Says that everything durable is applied.
    fn checkpoint(&mut self, now: u64) {
        let mut checkpoint = Checkpoint::default();
        let floor = self.commit.durable_lsn();
        checkpoint.advance(TARGET, floor);
        let record = Record {
            kind: RecordKind::Checkpoint,
            target: TargetId::NONE,
            payload: &checkpoint.encode(),
        };
        // Without room for it now, the next segment's end brings another.
        if let Ok(lsn) = self.commit.append(now, &record) {
            self.recycler.handle_checkpoint(lsn, floor);
        }
    }

    fn ask_for_segments(&mut self) {
        while self.commit.ready_segments() + self.preparing < READY_SEGMENTS {
            self.preparing += 1;
            let known = self.durable();
            self.tell_keeper(Job::Prepare(known));
        }
    }

    fn tell_keeper(&mut self, job: Job) {
        if let Some(keeper) = &self.keeper {
            // Gone only when the log is being closed.
            let _ = keeper.send(job);
        }
    }

    fn handle_segment(&mut self, prepared: Prepared<LogFile>) {
        self.files.push_back((prepared.ready.segment, prepared.file));
        self.commit.handle_segment(prepared.ready);
    }

    fn durable(&self) -> Durable {
        Durable {
            group: self.commit.durable_group(),
            lsn: self.commit.durable_lsn(),
            all_applied: true,
        }
    }
}

fn seed() -> Result<SegmentSeed, Failure> {
    let mut bytes = [0; 60];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (mut incarnation, mut key, mut wrap_nonce) = ([0; 16], [0; 32], [0; 12]);
    incarnation.copy_from_slice(&bytes[..16]);
    key.copy_from_slice(&bytes[16..48]);
    wrap_nonce.copy_from_slice(&bytes[48..]);
    Ok(SegmentSeed {
        incarnation,
        data_key: SecretKey::new(key),
        wrap_nonce,
    })
}
