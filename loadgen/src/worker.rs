//! One thread of the load: its connections, its share of the schedule, and one epoll loop that
//! drives them.
//!
//! ```text
//!   due? -> start calls on streams with room -> one send per connection
//!        -> wait (events, next due time, timers) -> one receive per ready connection
//!        -> ended calls are counted -> closed loop: start the next ones
//! ```
//!
//! The thread promises that the schedule of an open loop never waits for the server: a request that
//! finds no free stream stays due, and its latency runs from its due time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use prism_codec::h2::StreamId;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use self::counts::thread_cpu_ns;
use crate::{
    call::{Call, Fault},
    connection::{Broken, Client, Ended, Link},
    outcome::Outcome,
    plan::{Message, Pace, Phases, Plan, grpc_timeout, templates},
    tally::Tally,
    workload::Workload,
};

mod counts;

/// How long a thread tries to connect, at the start and when all its connections broke.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const RETRY_MIN_NS: u64 = 10_000_000;
const RETRY_MAX_NS: u64 = 1_000_000_000;
const INTERVAL_NS: u64 = 1_000_000_000;
const RECEIVE_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 256;
/// The shortest time between two turns that nothing but the schedule of an open loop asks for.
/// Waking up for each request costs more than sending it, and takes that time from the server where
/// they share cores. What a request waits for its turn is in its latency, for that runs from its
/// due time.
const TURN_MIN_NS: u64 = 50_000;

/// A thread of the load.
pub struct Worker<'p> {
    plan: &'p Plan,
    /// The header fields of each method, ready to be sent.
    templates: Vec<Vec<(&'p [u8], &'p [u8])>>,
    epoll: OwnedFd,
    clients: Vec<Client>,
    workload: Workload,
    pace: Pace,
    phases: Phases,
    started: Instant,
    started_unix_ns: u64,
    now_ns: u64,
    /// Where the search for a free stream goes on.
    cursor: usize,
    calls_left: u64,
    /// Second requests of calls, waiting for a stream.
    second_steps: VecDeque<(Call, u64)>,
    /// When requests that were due last had their turn.
    turned_ns: u64,
    /// When a request last found no free stream. What was due before is late for that reason and
    /// not by our own fault.
    starved_ns: u64,
    exhausted: bool,
    /// Connections that hold new output.
    dirty: Vec<usize>,
    deadlines: VecDeque<Timer>,
    faults: BinaryHeap<Reverse<Timer>>,
    ended: Vec<Ended>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
    tally: Tally,
    interval: u64,
    measuring: bool,
    cpu_ns: u64,
    last_up_ns: u64,
    sender: Sender<Message>,
    stop: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    at_ns: u64,
    client: usize,
    generation: u32,
    stream: StreamId,
    disconnects: bool,
}

/// Runs one thread to its end: connects, says that it is ready, waits for the start, works, and
/// says that it is through. `begin` gives the start of the run; `None` calls it off.
pub fn run(
    plan: &Plan,
    workload: Workload,
    pace: Pace,
    phases: Phases,
    sender: Sender<Message>,
    stop: Arc<AtomicBool>,
    begin: impl FnOnce() -> Option<Instant>,
) {
    let timeout = plan.deadline.map(grpc_timeout).unwrap_or_default();
    let worker = Worker::new(plan, &timeout, workload, pace, phases, sender.clone(), stop);
    let outcome = worker.and_then(|mut worker| {
        worker.connect_all()?;
        Ok(worker)
    });
    // When nobody listens any more, there is nobody to tell.
    let mut worker = match outcome {
        Ok(worker) => {
            let _ = sender.send(Message::Ready(Ok(())));
            worker
        }
        Err(error) => {
            let _ = sender.send(Message::Ready(Err(error)));
            return;
        }
    };
    let Some(started) = begin() else { return };
    let result = worker.work(started);
    let _ = sender.send(Message::Done {
        thread: plan.thread,
        result,
    });
}

impl<'p> Worker<'p> {
    fn new(
        plan: &'p Plan,
        timeout: &'p str,
        workload: Workload,
        pace: Pace,
        phases: Phases,
        sender: Sender<Message>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, String> {
        if let Some(core) = plan.core {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            rustix::thread::sched_setaffinity(None, &set)
                .map_err(|error| format!("can not run on core {core}: {error}"))?;
        }
        // Timers of ordinary threads are late by up to 50 µs, which would be charged to the server.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("no epoll: {error}"))?;
        Ok(Self {
            templates: templates(plan, timeout),
            epoll,
            clients: (0..plan.connections).map(|_| Client::new(plan.streams)).collect(),
            calls_left: phases.calls_max,
            plan,
            workload,
            pace,
            phases,
            started: Instant::now(),
            started_unix_ns: 0,
            now_ns: 0,
            cursor: 0,
            second_steps: VecDeque::new(),
            turned_ns: 0,
            starved_ns: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            exhausted: false,
            dirty: Vec::new(),
            deadlines: VecDeque::new(),
            faults: BinaryHeap::new(),
            ended: Vec::new(),
            buffer: vec![0; RECEIVE_BYTES],
            tally: Tally::default(),
            interval: 0,
            measuring: false,
            cpu_ns: 0,
            last_up_ns: 0,
            sender,
            stop,
        })
    }

    /// Opens all connections; fails with the first reason when one can not be opened in time.
    fn connect_all(&mut self) -> Result<(), String> {
        let address = self.plan.address;
        let refused = |error: &dyn std::fmt::Display| format!("can not connect to {address}: {error}");
        for index in 0..self.clients.len() {
            self.clients[index]
                .begin_connect(self.plan)
                .map_err(|error| refused(&error))?;
            self.watch(index).map_err(|error| refused(&error))?;
        }
        let patience = Instant::now() + CONNECT_PATIENCE;
        while self.clients.iter().any(|client| client.link == Link::Connecting) {
            let left = patience.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(refused(&"no answer"));
            }
            for place in 0..self
                .wait(left.as_nanos() as u64)
                .map_err(|error| refused(&error))?
            {
                let index = self.events[place].data.u64() as usize;
                if self.clients[index].link == Link::Connecting {
                    self.clients[index]
                        .finish_connect()
                        .map_err(|error| refused(&error))?;
                    self.set_interest(index).map_err(|error| refused(&error))?;
                }
            }
        }
        Ok(())
    }

    fn work(&mut self, started: Instant) -> Result<(), String> {
        self.started = started;
        self.started_unix_ns = unix_ns();
        self.cpu_ns = thread_cpu_ns();
        let give_up_ns = CONNECT_PATIENCE.as_nanos() as u64;
        loop {
            self.now_ns = self.started.elapsed().as_nanos() as u64;
            self.turn_interval();
            self.fire_timers();
            self.turned_ns = self.now_ns;
            self.start_due();
            self.flush_dirty();
            if self.is_through() {
                break;
            }
            if self.clients.iter().any(|client| client.link == Link::Up) {
                self.last_up_ns = self.now_ns;
            } else if self.now_ns > self.last_up_ns + give_up_ns {
                self.finish();
                return Err(format!(
                    "no connection to {} for {CONNECT_PATIENCE:?}",
                    self.plan.address
                ));
            }
            let wait_ns = self.next_wake_ns().saturating_sub(self.now_ns);
            let ready = self
                .wait(wait_ns)
                .map_err(|error| format!("epoll failed: {error}"))?;
            self.now_ns = self.started.elapsed().as_nanos() as u64;
            self.turn_interval();
            for place in 0..ready {
                let event = self.events[place];
                self.on_ready(event.data.u64() as usize, event.flags);
            }
            self.count_ended();
            self.workload
                .flush_journal()
                .map_err(|error| format!("the journal can not be written: {error}"))?;
        }
        self.finish();
        Ok(())
    }

    /// Whether everything that was to be sent is sent and answered, or the patience for that is
    /// over.
    fn is_through(&mut self) -> bool {
        let interrupted = self.stop.load(Ordering::Relaxed);
        let ended =
            self.now_ns >= self.phases.end_ns || self.calls_left == 0 || self.exhausted || interrupted;
        if !ended {
            return false;
        }
        if self.phases.end_ns > self.now_ns {
            // Ends by count or by hand: the measured time ends here.
            self.phases.end_ns = self.now_ns.max(1);
        }
        let open = self.clients.iter().map(Client::open).sum::<usize>() + self.second_steps.len();
        open == 0 || self.now_ns >= self.phases.end_ns.saturating_add(self.phases.drain_ns)
    }

    /// Counts what was never answered, says goodbye, and reports the last interval.
    fn finish(&mut self) {
        if let Pace::Open(schedule) = &mut self.pace {
            // What was due and could not leave, because the streams were all taken, was not served.
            while schedule.due_ns() < self.phases.end_ns && self.calls_left > 0 {
                let due_ns = schedule.take();
                self.calls_left -= 1;
                if due_ns >= self.phases.measure_ns {
                    let operation = self.workload.draw_operation();
                    self.tally.due += 1;
                    self.tally
                        .record(operation, Outcome::UNSERVED, self.now_ns.saturating_sub(due_ns));
                }
            }
        }
        let second_steps = std::mem::take(&mut self.second_steps);
        for (call, due_ns) in second_steps {
            self.count(&call, due_ns, Outcome::UNSERVED, None);
        }
        for client in &mut self.clients {
            client.goodbye();
            client.close(Outcome::UNSERVED, u64::MAX, &mut self.ended);
        }
        self.count_ended();
        let _ = self.workload.flush_journal();
        self.send_interval(true);
    }

    // ---- sending --------------------------------------------------------------------------------

    /// Starts what is due (open loop) or what fits (closed loop).
    fn start_due(&mut self) {
        while let Some((call, due_ns)) = self.second_steps.pop_front() {
            let Some(index) = self.client_with_room() else {
                self.second_steps.push_front((call, due_ns));
                self.starved_ns = self.now_ns;
                return;
            };
            self.start(index, call, due_ns);
        }
        while self.calls_left > 0 && !self.exhausted {
            let due_ns = match &self.pace {
                Pace::Open(schedule) => schedule.due_ns(),
                Pace::Closed => self.now_ns,
            };
            // What became due right before the end, while the thread slept, still leaves; what had
            // waited for a free stream by then does not.
            let over = self.now_ns >= self.phases.end_ns && due_ns <= self.starved_ns;
            if due_ns > self.now_ns
                || due_ns >= self.phases.end_ns
                || over
                || self.stop.load(Ordering::Relaxed)
            {
                return;
            }
            let Some(index) = self.client_with_room() else {
                self.starved_ns = self.now_ns;
                return;
            };
            let Some(call) = self.workload.plan(self.started_unix_ns + self.now_ns) else {
                self.exhausted = true;
                return;
            };
            if let Pace::Open(schedule) = &mut self.pace {
                schedule.take();
                if due_ns > self.starved_ns {
                    self.tally.record_lag(self.now_ns - due_ns);
                }
            }
            self.calls_left -= 1;
            if due_ns >= self.phases.measure_ns {
                self.tally.due += 1;
            }
            self.start(index, call, due_ns);
        }
    }

    /// A connection with a free stream, going round so that all carry the same load.
    fn client_with_room(&mut self) -> Option<usize> {
        for _ in 0..self.clients.len() {
            let index = self.cursor;
            self.cursor = if index + 1 == self.clients.len() {
                0
            } else {
                index + 1
            };
            if self.clients[index].has_room() {
                return Some(index);
            }
        }
        None
    }

    fn start(&mut self, index: usize, call: Call, due_ns: u64) {
        let client = &mut self.clients[index];
        let headers = &self.templates[call.method() as usize];
        self.dirty.push(index);
        let Some(stream) = client.start(call, due_ns, headers, &mut self.workload) else {
            let (outcome, told) = (Outcome::UNAVAILABLE, Default::default());
            let message = Some("the request could not be sent".to_owned());
            self.ended.push(Ended {
                call,
                due_ns,
                outcome,
                told,
                wrong: None,
                message,
            });
            return;
        };
        let timer = |at_ns, disconnects| Timer {
            at_ns,
            client: index,
            generation: client.generation,
            stream,
            disconnects,
        };
        if let Some(deadline) = self.plan.deadline {
            self.deadlines
                .push_back(timer(self.now_ns + deadline.as_nanos() as u64, false));
        }
        match call.fault {
            Some(Fault::CancelEarly | Fault::CancelSent) => {
                self.ended.extend(client.cut(stream, Outcome::CUT))
            }
            Some(Fault::CancelLater { after_ns }) => {
                self.faults.push(Reverse(timer(self.now_ns + after_ns, false)));
            }
            Some(Fault::Disconnect { after_ns }) => {
                self.faults.push(Reverse(timer(self.now_ns + after_ns, true)))
            }
            Some(Fault::CancelAnswered) | None => {}
        }
    }

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            if self.clients[index].has_output() && self.clients[index].link == Link::Up {
                self.flush(index);
            }
        }
        self.dirty = dirty;
        self.count_ended();
    }

    fn flush(&mut self, index: usize) {
        match self.clients[index].flush() {
            Ok(sent) => {
                self.tally.bytes_sent += sent as u64;
                if self.clients[index].is_blocked() != self.clients[index].waits_for_room {
                    self.clients[index].waits_for_room = self.clients[index].is_blocked();
                    if let Err(error) = self.set_interest(index) {
                        self.lose(index, &Broken::Io(error));
                    }
                }
            }
            Err(broken) => self.lose(index, &broken),
        }
    }

    // ---- receiving ------------------------------------------------------------------------------

    fn on_ready(&mut self, index: usize, flags: epoll::EventFlags) {
        if self.clients[index].link == Link::Connecting {
            match self.clients[index].finish_connect() {
                Ok(()) => self.tally.reconnects += 1,
                Err(error) => return self.lose(index, &Broken::Io(error)),
            }
            self.clients[index].waits_for_room = false;
            if let Err(error) = self.set_interest(index) {
                self.lose(index, &Broken::Io(error));
            }
            return;
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(index);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            match self.clients[index].receive(&mut self.buffer, &self.workload, &mut self.ended) {
                Ok(count) => self.tally.bytes_received += count as u64,
                Err(broken) => return self.lose(index, &broken),
            }
            self.dirty.push(index);
            if self.clients[index].is_drained() {
                self.clients[index].close(Outcome::UNAVAILABLE, self.now_ns, &mut self.ended);
                self.reconnect(index);
            }
        }
    }

    /// The connection broke by itself: its calls are lost, and it is opened again after a while.
    fn lose(&mut self, index: usize, broken: &Broken) {
        let client = &mut self.clients[index];
        client.failures += 1;
        let backoff_ns = (RETRY_MIN_NS << client.failures.min(16)).min(RETRY_MAX_NS) / 2;
        let before = self.ended.len();
        // A GOAWAY may explain to the peer why; it does not matter whether it arrives.
        let _ = client.flush();
        client.close(Outcome::LOST, self.now_ns + backoff_ns, &mut self.ended);
        for ended in &mut self.ended[before..] {
            ended.message = Some(broken.to_string());
        }
    }

    fn reconnect(&mut self, index: usize) {
        let begun = self.clients[index]
            .begin_connect(self.plan)
            .and_then(|()| self.watch(index));
        if let Err(error) = begun {
            self.lose(index, &Broken::Io(error));
        }
    }

    // ---- time -----------------------------------------------------------------------------------

    fn fire_timers(&mut self) {
        while let Some(timer) = self.deadlines.front().copied() {
            // Calls that have ended are dropped early, so that a long deadline does not pile up
            // timers.
            let open = self.clients[timer.client].carries(timer.generation, timer.stream);
            if open && timer.at_ns > self.now_ns {
                break;
            }
            self.deadlines.pop_front();
            if open {
                let ended = self.clients[timer.client].cut(timer.stream, Outcome::DEADLINE_EXCEEDED);
                self.ended.extend(ended);
                self.dirty.push(timer.client);
            }
        }
        while let Some(Reverse(timer)) = self
            .faults
            .peek()
            .copied()
            .filter(|timer| timer.0.at_ns <= self.now_ns)
        {
            self.faults.pop();
            if timer.disconnects {
                // The connection may have been replaced meanwhile; then there is nothing left to
                // break.
                if self.clients[timer.client].generation == timer.generation
                    && self.clients[timer.client].link == Link::Up
                {
                    self.clients[timer.client].close(Outcome::CUT, self.now_ns, &mut self.ended);
                    self.reconnect(timer.client);
                }
            } else if self.clients[timer.client].carries(timer.generation, timer.stream) {
                let ended = self.clients[timer.client].cut(timer.stream, Outcome::CUT);
                self.ended.extend(ended);
                self.dirty.push(timer.client);
            }
        }
        for index in 0..self.clients.len() {
            if matches!(self.clients[index].link, Link::Down { retry_ns } if retry_ns <= self.now_ns) {
                self.reconnect(index);
            }
        }
        self.count_ended();
    }

    /// When the thread must wake up although nothing comes in.
    fn next_wake_ns(&self) -> u64 {
        let interval_ns = (self.interval + 1) * INTERVAL_NS;
        let mut wake_ns = interval_ns;
        if !self.measuring {
            wake_ns = wake_ns.min(self.phases.measure_ns);
        }
        let end_ns = self.phases.end_ns;
        wake_ns = wake_ns.min(if self.now_ns < end_ns {
            end_ns
        } else {
            end_ns.saturating_add(self.phases.drain_ns)
        });
        // A request that is due already waits for a stream, and so for an event.
        if let Pace::Open(schedule) = &self.pace
            && schedule.due_ns() > self.now_ns
            && self.calls_left > 0
        {
            wake_ns = wake_ns.min(schedule.due_ns().max(self.turned_ns + TURN_MIN_NS));
        }
        if let Some(timer) = self.deadlines.front() {
            wake_ns = wake_ns.min(timer.at_ns);
        }
        if let Some(Reverse(timer)) = self.faults.peek() {
            wake_ns = wake_ns.min(timer.at_ns);
        }
        for client in &self.clients {
            if let Link::Down { retry_ns } = client.link {
                wake_ns = wake_ns.min(retry_ns);
            }
        }
        wake_ns
    }

    // ---- counting -------------------------------------------------------------------------------

    // ---- epoll ----------------------------------------------------------------------------------

    /// Begins to watch the socket of a connection that is being opened: writable means open.
    fn watch(&mut self, index: usize) -> io::Result<()> {
        let Some(socket) = &self.clients[index].socket else {
            return Ok(());
        };
        let data = epoll::EventData::new_u64(index as u64);
        Ok(epoll::add(&self.epoll, socket, data, epoll::EventFlags::OUT)?)
    }

    fn set_interest(&mut self, index: usize) -> io::Result<()> {
        let client = &self.clients[index];
        let Some(socket) = &client.socket else {
            return Ok(());
        };
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, client.is_blocked());
        Ok(epoll::modify(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(index as u64),
            flags,
        )?)
    }

    /// Waits for events, at most `wait_ns`; gives how many there are in `events`.
    fn wait(&mut self, wait_ns: u64) -> io::Result<usize> {
        let timeout = Timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as i64,
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The wall clock in nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
