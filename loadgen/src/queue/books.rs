//! Books of a Queue load: what was sent, who had it when, what was done, and what is wrong with
//! that.
//!
//! Pure: moments come as arguments, in nanoseconds since the start of the run. They bound what the
//! server did: a lease begins after its Receive left, and an answer was given before it came.

use crate::messages::{Numbers, hash_of};

/// Time by which a lease may be shorter than asked for: its end is a whole millisecond.
const LEASE_ROUNDING_NS: u64 = 1_000_000;

/// Faults that are described.
const EXAMPLES_MAX: usize = 10;
/// Messages of one sender that are kept apart.
const NUMBERS_MAX: u64 = 1 << 32;
/// Time of what has not happened.
const NEVER: u64 = u64::MAX;

/// Kinds of faults, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged, and done by nobody.
    Lost,
    /// Nobody sent it, or its Send was answered with the promise that nothing was done.
    Phantom,
    /// Under another id than the one known: stored twice, or an answer to another call.
    OtherId,
    /// Given to a worker after an answer had said that it was done.
    Again,
    /// Done under two receipts.
    DoneTwice,
    /// With two workers at a time.
    Shared,
    /// A lease that was lost before its end.
    LeaseCut,
    /// Given after a later message of its key.
    Disordered,
    /// Not as it was sent, or an answer that cannot be one to this call.
    Damaged,
    /// Left in the queue, or dead, at the end.
    Left,
}

impl Fault {
    /// All kinds with their words.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Lost, "lost"),
        (Self::Phantom, "sent by nobody"),
        (Self::OtherId, "under the id of another"),
        (Self::Again, "given again after they were done"),
        (Self::DoneTwice, "done twice"),
        (Self::Shared, "given to two workers at a time"),
        (Self::LeaseCut, "taken away before their lease ended"),
        (Self::Disordered, "out of order"),
        (Self::Damaged, "damaged or mixed up"),
        (Self::Left, "left in the queue"),
    ];
}

/// Promises of the queue under load that some faults depend on.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Ordering keys of each sender; 0: the queue has no order.
    pub keys: u64,
    /// The server is killed meanwhile, so leases may be lost.
    pub leases_may_be_lost: bool,
}

/// Books of all senders and workers.
#[derive(Debug)]
pub struct Books {
    terms: Terms,
    senders: Vec<OfSender>,
    counts: [u64; Fault::ALL.len()],
    examples: Vec<String>,
    /// Places at which messages came after a later one of their key: sender, later, earlier.
    overtakings: Vec<(u32, u64, u64)>,
}

#[derive(Debug, Default)]
struct OfSender {
    messages: Vec<Entry>,
    acknowledged: Numbers,
    /// Of each key the highest number given, and when its answer came.
    highest: Vec<Option<(u64, u64)>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Id as it is known; 0: not known.
    id: u64,
    /// Whether its Send said that nothing was done.
    is_refused: bool,
    /// Whether an Ack of unknown outcome has left.
    may_be_done: bool,
    /// When the answer came that said that it is done, and the receipt of that.
    done_ns: u64,
    done_receipt: u64,
    /// The lease that was given last: its receipt, and before when it cannot have ended.
    receipt: u64,
    leased_until_ns: u64,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            id: 0,
            is_refused: false,
            may_be_done: false,
            done_ns: NEVER,
            done_receipt: 0,
            receipt: 0,
            leased_until_ns: 0,
        }
    }
}

/// A message that a worker was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<'a> {
    /// Sender, from 0.
    pub sender: u32,
    /// Number among those of the sender.
    pub number: u64,
    /// Id of the message.
    pub id: &'a [u8],
    /// The receipt.
    pub receipt: &'a [u8],
    /// When the call left.
    pub asked_ns: u64,
    /// When its answer came.
    pub answered_ns: u64,
    /// How long it is the worker's, from when the server gave it.
    pub lease_ns: u64,
}

/// Answer to one receipt of an Ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// It is done.
    Done,
    /// The lease is lost, or the message gone.
    Late,
    /// Nobody knows.
    Unknown,
}

impl Books {
    /// Empty books of so many senders.
    pub fn new(senders: u32, terms: Terms) -> Self {
        let of_one = || OfSender {
            highest: vec![None; terms.keys as usize],
            ..OfSender::default()
        };
        Self {
            terms,
            senders: (0..senders).map(|_| of_one()).collect(),
            counts: [0; Fault::ALL.len()],
            examples: Vec::new(),
            overtakings: Vec::new(),
        }
    }

    /// Notes a Send before it leaves.
    pub fn sending(&mut self, sender: u32, number: u64) {
        let of = &mut self.senders[sender as usize];
        if number as usize >= of.messages.len() {
            of.messages.resize(number as usize + 1, Entry::default());
        }
    }

    /// Notes that a Send was answered with this id.
    pub fn acknowledged(&mut self, sender: u32, number: u64, id: &[u8]) {
        self.senders[sender as usize].acknowledged.insert(number);
        self.note_id(sender, number, id);
    }

    /// Notes that a Send was answered with the promise that nothing was done.
    pub fn refused(&mut self, sender: u32, number: u64) {
        let of = &mut self.senders[sender as usize];
        let Some(entry) = of.messages.get_mut(number as usize) else {
            return;
        };
        entry.is_refused = true;
        if entry.id != 0 {
            self.fault(Fault::Phantom, || {
                format!("message {number} of sender {sender} was refused")
            });
        }
    }

    /// Notes a message that a worker was given. Returns whether it is one of this load, given for
    /// the first time.
    pub fn given(&mut self, given: &Given<'_>) -> bool {
        let Given { sender, number, .. } = *given;
        let of = self.senders.get(sender as usize);
        let Some(entry) = of.and_then(|of| of.messages.get(number as usize).copied()) else {
            self.fault(Fault::Phantom, || {
                format!("message {number} of sender {sender} was never sent")
            });
            return false;
        };
        if entry.is_refused {
            self.fault(Fault::Phantom, || {
                format!("message {number} of sender {sender} was refused")
            });
        }
        let is_first = entry.receipt == 0;
        self.note_id(sender, number, given.id);
        if entry.done_ns <= given.asked_ns {
            let ms = (given.asked_ns - entry.done_ns) / 1_000_000;
            self.fault(Fault::Again, || {
                format!("message {number} of sender {sender}, {ms} ms after it was done")
            });
        }
        let receipt = hash_of(given.receipt);
        let is_other = !is_first && entry.receipt != receipt;
        // The one before cannot have ended when this one was given, before the answer came.
        if is_other && given.answered_ns < entry.leased_until_ns && !self.terms.leases_may_be_lost {
            self.fault(Fault::Shared, || {
                let ms = (entry.leased_until_ns - given.answered_ns) / 1_000_000;
                format!("message {number} of sender {sender}, {ms} ms before its lease could end")
            });
        }
        self.note_order(given);
        let entry = &mut self.senders[sender as usize].messages[number as usize];
        if is_first || is_other {
            entry.receipt = receipt;
            let least_ns = given.lease_ns.saturating_sub(LEASE_ROUNDING_NS);
            entry.leased_until_ns = given.asked_ns.saturating_add(least_ns);
        }
        is_first
    }

    /// Notes the answer to one receipt, which came at this moment. Returns whether the message is
    /// done by this for the first time.
    pub fn acked(&mut self, sender: u32, number: u64, receipt: &[u8], acked: Acked, now_ns: u64) -> bool {
        let of = self.senders.get_mut(sender as usize);
        let Some(entry) = of.and_then(|of| of.messages.get_mut(number as usize)) else {
            return false;
        };
        let receipt = hash_of(receipt);
        match acked {
            Acked::Unknown => entry.may_be_done = true,
            Acked::Done if entry.done_ns == NEVER => {
                (entry.done_ns, entry.done_receipt) = (now_ns, receipt);
                return true;
            }
            Acked::Done if entry.done_receipt != receipt => {
                self.fault(Fault::DoneTwice, || {
                    format!("message {number} of sender {sender}")
                });
            }
            Acked::Done => {}
            // An Ack before, of which nobody knows, may have been the one that counted.
            Acked::Late => {
                let is_held = entry.receipt == receipt && now_ns < entry.leased_until_ns;
                let is_open = entry.done_ns == NEVER && !entry.may_be_done;
                if is_held && is_open && !self.terms.leases_may_be_lost {
                    self.fault(Fault::LeaseCut, || format!("message {number} of sender {sender}"));
                }
            }
        }
        false
    }

    /// Counts a fault that was found elsewhere.
    pub fn fault(&mut self, fault: Fault, describe: impl FnOnce() -> String) {
        self.counts[fault as usize] += 1;
        if self.examples.len() < EXAMPLES_MAX {
            let words = Fault::ALL[fault as usize].1;
            self.examples.push(format!("{words}: {}", describe()));
        }
    }

    /// Messages whose Send was acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        self.senders.iter().map(|of| of.acknowledged.count()).sum()
    }

    /// Acknowledged messages that are not done, as far as is known.
    pub fn open_count(&self) -> u64 {
        self.open().count() as u64
    }

    /// Judges what is left, when nobody works any more. `left` are the messages that the queue
    /// itself counts as not done, dead ones included.
    pub fn conclude(&mut self, left: u64) {
        let open: Vec<(u32, u64)> = self.open().collect();
        for (sender, number) in open {
            self.fault(Fault::Lost, || format!("message {number} of sender {sender}"));
        }
        for (sender, later, earlier) in std::mem::take(&mut self.overtakings) {
            // A Send whose outcome nobody knows overlaps those after it: it has no place.
            let acknowledged = &self.senders[sender as usize].acknowledged;
            if acknowledged.has(later) && acknowledged.has(earlier) {
                self.fault(Fault::Disordered, || {
                    format!("message {earlier} of sender {sender} after message {later}")
                });
            }
        }
        if left > 0 {
            self.counts[Fault::Left as usize] += left - 1;
            self.fault(Fault::Left, || format!("{left} messages, as the queue counts"));
        }
    }

    /// How many faults of each kind there are.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Descriptions of the first faults.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    fn open(&self) -> impl Iterator<Item = (u32, u64)> {
        self.senders.iter().zip(0..).flat_map(|(of, sender)| {
            let messages = of.messages.iter().zip(0..);
            let open = messages.filter(|(entry, number)| {
                entry.done_ns == NEVER && !entry.may_be_done && of.acknowledged.has(*number)
            });
            open.map(move |(_, number)| (sender, number))
        })
    }

    fn note_id(&mut self, sender: u32, number: u64, id: &[u8]) {
        let of = &mut self.senders[sender as usize];
        let Some(entry) = of.messages.get_mut(number as usize) else {
            return;
        };
        let known = std::mem::replace(&mut entry.id, hash_of(id));
        if known != 0 && known != entry.id {
            self.fault(Fault::OtherId, || format!("message {number} of sender {sender}"));
        }
    }

    fn note_order(&mut self, given: &Given<'_>) {
        let Given { sender, number, .. } = *given;
        let Some(key) = number.checked_rem(self.terms.keys) else {
            return;
        };
        let highest = &mut self.senders[sender as usize].highest[key as usize];
        match *highest {
            // It was given before this one was asked for.
            Some((later, answered_ns)) if later > number => {
                if answered_ns <= given.asked_ns && self.overtakings.len() < EXAMPLES_MAX * 100 {
                    self.overtakings.push((sender, later, number));
                }
            }
            Some((same, _)) if same == number => {}
            _ => *highest = Some((number, given.answered_ns)),
        }
    }
}

/// Whether the number of a message can be one of a load.
pub fn is_number(number: u64) -> bool {
    number < NUMBERS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn books(keys: u64) -> Books {
        let terms = Terms {
            keys,
            leases_may_be_lost: false,
        };
        let mut books = Books::new(1, terms);
        for number in 0..4 {
            books.sending(0, number);
            books.acknowledged(0, number, &[number as u8]);
        }
        books
    }

    fn give(books: &mut Books, number: u64, receipt: &[u8], at_ns: u64) -> bool {
        books.given(&Given {
            sender: 0,
            number,
            id: &[number as u8],
            receipt,
            asked_ns: at_ns,
            answered_ns: at_ns + 10,
            lease_ns: 5 * SECOND,
        })
    }

    fn found(books: &Books) -> Vec<Fault> {
        let kinds = Fault::ALL.iter().zip(books.counts());
        kinds
            .filter(|(_, count)| **count > 0)
            .map(|((kind, _), _)| *kind)
            .collect()
    }

    fn all_done(books: &mut Books, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            assert!(give(books, number, &[7, number as u8], 100 * number));
            assert!(books.acked(0, number, &[7, number as u8], Acked::Done, 100 * number + 50));
        }
    }

    #[test]
    fn faults_are_numbered_in_order() {
        for (index, (fault, _)) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, index);
        }
    }

    #[test]
    fn what_is_done_once_is_right() {
        let mut books = books(2);
        all_done(&mut books, 0..4);
        // A repeat of the Ack, and what comes again before anybody knows that it was done.
        assert!(!books.acked(0, 0, &[7, 0], Acked::Done, 60));
        assert!(!give(&mut books, 3, &[7, 3], 340));
        books.conclude(0);
        assert_eq!((found(&books), books.open_count()), (vec![], 0));
    }

    #[test]
    fn an_ack_of_unknown_outcome_counts_as_open_and_not_as_lost() {
        let mut books = books(0);
        all_done(&mut books, 1..4);
        give(&mut books, 0, b"r", 0);
        books.acked(0, 0, b"r", Acked::Unknown, 20);
        books.acked(0, 0, b"r", Acked::Late, 30);
        books.conclude(0);
        assert_eq!(found(&books), []);
    }

    #[test]
    fn each_fault_is_found() {
        let faults = |work: &dyn Fn(&mut Books)| {
            let mut books = books(0);
            work(&mut books);
            all_done(&mut books, 2..4);
            books.conclude(0);
            found(&books)
                .into_iter()
                .filter(|fault| *fault != Fault::Lost)
                .collect::<Vec<_>>()
        };
        let never = |books: &mut Books| {
            give(books, 9, b"r", 0);
        };
        assert_eq!(faults(&never), [Fault::Phantom]);
        let refused = |books: &mut Books| {
            books.sending(0, 4);
            books.refused(0, 4);
            give(books, 4, b"r", 0);
        };
        assert_eq!(faults(&refused), [Fault::Phantom]);
        let other_id = |books: &mut Books| books.acknowledged(0, 0, b"other");
        assert_eq!(faults(&other_id), [Fault::OtherId]);
        let again = |books: &mut Books| {
            give(books, 0, b"r", 0);
            books.acked(0, 0, b"r", Acked::Done, 20);
            give(books, 0, b"s", 6 * SECOND);
        };
        assert_eq!(faults(&again), [Fault::Again]);
        let twice = |books: &mut Books| {
            give(books, 0, b"r", 0);
            give(books, 0, b"s", 6 * SECOND);
            books.acked(0, 0, b"r", Acked::Done, 7 * SECOND);
            books.acked(0, 0, b"s", Acked::Done, 8 * SECOND);
        };
        assert_eq!(faults(&twice), [Fault::DoneTwice]);
        let shared = |books: &mut Books| {
            give(books, 0, b"r", 0);
            give(books, 0, b"s", 4 * SECOND);
        };
        assert_eq!(faults(&shared), [Fault::Shared]);
        let cut = |books: &mut Books| {
            give(books, 0, b"r", 0);
            books.acked(0, 0, b"r", Acked::Late, SECOND);
        };
        assert_eq!(faults(&cut), [Fault::LeaseCut]);
    }

    #[test]
    fn lost_and_left_messages_are_faults() {
        let mut books = books(0);
        all_done(&mut books, 0..3);
        books.conclude(2);
        assert_eq!(found(&books), [Fault::Lost, Fault::Left]);
        assert_eq!(books.counts()[Fault::Left as usize], 2);
        assert!(
            books.examples()[0].contains("message 3"),
            "{:?}",
            books.examples()
        );
    }

    #[test]
    fn messages_of_a_key_come_in_order_if_the_queue_has_one() {
        for (keys, expected) in [(2, vec![Fault::Disordered]), (0, vec![]), (4, vec![])] {
            let mut books = books(keys);
            all_done(&mut books, [3]);
            for number in [1, 0, 2] {
                give(&mut books, number, &[number as u8], SECOND);
                books.acked(0, number, &[number as u8], Acked::Done, 2 * SECOND);
            }
            books.conclude(0);
            assert_eq!(found(&books), expected, "{keys} keys");
        }
    }

    #[test]
    fn a_send_of_unknown_outcome_has_no_place_in_the_order() {
        let mut books = books(1);
        books.sending(0, 4);
        books.sending(0, 5);
        books.acknowledged(0, 5, &[5]);
        all_done(&mut books, 0..4);
        give(&mut books, 5, b"r", SECOND);
        books.acked(0, 5, b"r", Acked::Done, SECOND + 20);
        give(&mut books, 4, b"s", 2 * SECOND);
        books.conclude(0);
        assert_eq!(found(&books), []);
    }
}
