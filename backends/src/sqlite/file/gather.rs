//! Gathers the frames that a commit appends to the write-ahead file, so that one system call writes
//! them all.
//!
//! SQLite writes each frame with two calls, 24 bytes of header and then the page, and nobody looks
//! at any of them before the last is written: only then does it publish them in the index. Pure:
//! the calls themselves are an argument. What does not look like the next frame, or is read, first
//! sends what was gathered on its way, so that the file is in every case what it would be without.
//! Frame format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use super::schema::PAGE_SIZE;

const HEADER_BYTES: usize = 24;
const PAGE_BYTES: usize = PAGE_SIZE as usize;
/// In front of the first frame.
const FILE_HEADER_BYTES: u64 = 32;
const FRAME_BYTES: u64 = (HEADER_BYTES + PAGE_BYTES) as u64;
/// Bytes that are gathered at the most.
const BYTES_MAX: usize = 256 << 10;

/// Return value of a system call: how many bytes, or less than nothing for an error that the system
/// keeps in `errno`.
pub(super) type Returned = isize;

/// Frames of one file on their way, of one thread.
#[derive(Debug)]
pub(super) struct Gather {
    file: i32,
    /// Where the first of `bytes` belongs.
    start: u64,
    bytes: Vec<u8>,
    next: Next,
}

/// Next call that would go on with the frames before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: the place of the next frame is not known.
    Unknown,
    /// The page of a frame whose header was written by a call of its own.
    FirstPage(u64),
    Header(u64),
    /// With whether its header says that a commit ends with it.
    Page(u64, bool),
}

impl Gather {
    pub(super) const fn new() -> Gather {
        Gather {
            file: -1,
            start: 0,
            bytes: Vec::new(),
            next: Next::Unknown,
        }
    }

    /// Whether there is something that the file does not have yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the place of the next frame is known.
    #[cfg(test)]
    pub(super) fn expects_a_frame(&self) -> bool {
        matches!(self.next, Next::Header(_))
    }

    /// Writes `bytes` at `offset`, now or together with what follows. `write` is the system call.
    ///
    /// Only frames that follow each other are gathered. A header alone, as SQLite writes it when
    /// the checksums of frames in the middle must be made anew, is never where the next frame is
    /// expected, and goes to the file at once.
    pub(super) fn write(
        &mut self,
        file: i32,
        bytes: &[u8],
        offset: u64,
        mut write: impl FnMut(i32, &[u8], u64) -> Returned,
    ) -> Returned {
        let whole = bytes.len() as Returned;
        if file == self.file {
            match self.next {
                Next::Header(at) if at == offset && bytes.len() == HEADER_BYTES => {
                    let ends = bytes[4..8] != [0; 4];
                    self.keep(bytes, offset);
                    self.next = Next::Page(offset + HEADER_BYTES as u64, ends);
                    return whole;
                }
                Next::Page(at, ends) if at == offset && bytes.len() == PAGE_BYTES => {
                    self.keep(bytes, offset);
                    self.next = Next::Header(offset + PAGE_BYTES as u64);
                    if ends || self.bytes.len() >= BYTES_MAX {
                        let flushed = self.flush(&mut write);
                        if flushed <= 0 {
                            return flushed;
                        }
                    }
                    return whole;
                }
                _ => {}
            }
        }
        let flushed = self.flush(&mut write);
        if flushed <= 0 {
            return flushed;
        }
        let written = write(file, bytes, offset);
        let begins_frame = offset
            .checked_sub(FILE_HEADER_BYTES)
            .is_some_and(|place| place % FRAME_BYTES == 0);
        self.next = match self.next {
            _ if written != whole => Next::Unknown,
            Next::FirstPage(at) if file == self.file && at == offset && bytes.len() == PAGE_BYTES => {
                Next::Header(offset + PAGE_BYTES as u64)
            }
            _ if begins_frame && bytes.len() == HEADER_BYTES => Next::FirstPage(offset + HEADER_BYTES as u64),
            _ => Next::Unknown,
        };
        self.file = file;
        written
    }

    /// Before anything is read: sends what was gathered on its way. Returns 1, or what the call
    /// that failed returned; the rest of what was gathered is lost then, and the transaction fails
    /// with it.
    pub(super) fn flush(&mut self, mut write: impl FnMut(i32, &[u8], u64) -> Returned) -> Returned {
        let mut done = 0;
        while done < self.bytes.len() {
            let written = write(self.file, &self.bytes[done..], self.start + done as u64);
            if written <= 0 {
                self.forget();
                return written;
            }
            done += written.cast_unsigned();
        }
        self.bytes.clear();
        1
    }

    /// The transaction has ended; what a commit has not sent belongs to none.
    pub(super) fn forget(&mut self) {
        if !self.is_empty() {
            self.bytes.clear();
            self.next = Next::Unknown;
        }
    }

    fn keep(&mut self, bytes: &[u8], offset: u64) {
        if self.bytes.is_empty() {
            self.start = offset;
        }
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: i32 = 7;

    /// A file in memory that counts calls and takes so many bytes at the most.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        calls: usize,
        room: Option<usize>,
        bytes_per_call: Option<usize>,
    }

    impl Disk {
        fn write(&mut self, bytes: &[u8], offset: u64) -> Returned {
            self.calls += 1;
            let offset = offset as usize;
            let taken = bytes.len().min(self.bytes_per_call.unwrap_or(usize::MAX));
            if self.room.is_some_and(|room| offset + taken > room) {
                return -1;
            }
            if self.bytes.len() < offset + taken {
                self.bytes.resize(offset + taken, 0);
            }
            self.bytes[offset..offset + taken].copy_from_slice(&bytes[..taken]);
            taken as Returned
        }
    }

    fn place(frame: u64) -> u64 {
        FILE_HEADER_BYTES + frame * FRAME_BYTES
    }

    fn header(fill: u8, ends: bool) -> [u8; HEADER_BYTES] {
        let mut header = [fill; HEADER_BYTES];
        header[4..8].copy_from_slice(&u32::from(ends).to_be_bytes());
        header
    }

    /// Writes a frame as SQLite does; says what the calls returned.
    fn frame(
        gather: &mut Gather,
        disk: &mut Disk,
        number: u64,
        fill: u8,
        ends: bool,
    ) -> (Returned, Returned) {
        let page = [fill; PAGE_BYTES];
        let first = gather.write(FILE, &header(fill, ends), place(number), |_, bytes, at| {
            disk.write(bytes, at)
        });
        let at = place(number) + HEADER_BYTES as u64;
        let second = gather.write(FILE, &page, at, |_, bytes, at| disk.write(bytes, at));
        (first, second)
    }

    const WHOLE: (Returned, Returned) = (HEADER_BYTES as Returned, PAGE_BYTES as Returned);

    #[test]
    fn a_commit_is_one_call_and_the_file_is_as_without() {
        let (mut gather, mut disk) = (Gather::new(), Disk::default());
        let mut expected = Disk::default();
        for number in 0..40 {
            let (fill, ends) = (number as u8 + 1, number % 10 == 9);
            assert_eq!(frame(&mut gather, &mut disk, number, fill, ends), WHOLE);
            expected.write(&header(fill, ends), place(number));
            expected.write(&[fill; PAGE_BYTES], place(number) + HEADER_BYTES as u64);
            if ends {
                assert!(
                    gather.is_empty() && disk.bytes == expected.bytes,
                    "commit {number}"
                );
            }
        }
        assert_eq!(
            disk.calls,
            2 + 4,
            "the first frame shows where the next is expected"
        );
    }

    #[test]
    fn what_is_read_is_written_before() {
        let (mut gather, mut disk) = (Gather::new(), Disk::default());
        frame(&mut gather, &mut disk, 0, 1, false);
        frame(&mut gather, &mut disk, 1, 2, false);
        assert!(!gather.is_empty());
        assert_eq!(gather.flush(|_, bytes, at| disk.write(bytes, at)), 1);
        assert_eq!(disk.bytes.len() as u64, place(2));
        // Between a header and its page, too.
        let calls = disk.calls;
        gather.write(FILE, &header(3, false), place(2), |_, bytes, at| {
            disk.write(bytes, at)
        });
        gather.flush(|_, bytes, at| disk.write(bytes, at));
        let page = place(2) + HEADER_BYTES as u64;
        gather.write(FILE, &[3; PAGE_BYTES], page, |_, bytes, at| disk.write(bytes, at));
        frame(&mut gather, &mut disk, 3, 4, true);
        assert_eq!(disk.calls, calls + 2);
        assert_eq!(disk.bytes.len() as u64, place(4));
        assert_eq!(disk.bytes[page as usize..][..PAGE_BYTES], [3; PAGE_BYTES]);
    }

    #[test]
    fn headers_and_pages_in_the_middle_go_to_the_file_at_once() {
        let (mut gather, mut disk) = (Gather::new(), Disk::default());
        for number in 0..3 {
            frame(&mut gather, &mut disk, number, 1, false);
        }
        // A page of this transaction is written again in its place, then the headers from there on.
        let at = place(1) + HEADER_BYTES as u64;
        gather.write(FILE, &[9; PAGE_BYTES], at, |_, bytes, at| disk.write(bytes, at));
        assert!(gather.is_empty());
        for number in 1..3 {
            gather.write(FILE, &header(9, number == 2), place(number), |_, bytes, at| {
                disk.write(bytes, at)
            });
            assert!(gather.is_empty(), "frame {number}");
        }
        assert_eq!(disk.bytes[place(2) as usize..][..HEADER_BYTES], header(9, true));
        assert_eq!(disk.bytes[at as usize..][..PAGE_BYTES], [9; PAGE_BYTES]);
    }

    #[test]
    fn a_disk_that_takes_less_at_a_time_gets_the_rest_and_one_that_is_full_says_so() {
        let (mut gather, mut disk) = (Gather::new(), Disk::default());
        frame(&mut gather, &mut disk, 0, 1, true);
        disk.bytes_per_call = Some(1_000);
        frame(&mut gather, &mut disk, 1, 2, false);
        assert_eq!(frame(&mut gather, &mut disk, 2, 3, true), WHOLE);
        assert_eq!(disk.bytes.len() as u64, place(3));
        disk.room = Some(place(4) as usize);
        frame(&mut gather, &mut disk, 3, 4, false);
        let (_, returned) = frame(&mut gather, &mut disk, 4, 5, true);
        assert_eq!(returned, -1, "its commit fails");
        assert!(gather.is_empty());
        // The transaction is rolled back, room is made: the next begins in the same place.
        (disk.room, disk.bytes_per_call) = (None, None);
        assert_eq!(frame(&mut gather, &mut disk, 3, 6, false), WHOLE);
        assert_eq!(frame(&mut gather, &mut disk, 4, 7, true), WHOLE);
        let page = place(3) + HEADER_BYTES as u64;
        assert_eq!(disk.bytes[page as usize..][..PAGE_BYTES], [6; PAGE_BYTES]);
        assert_eq!(disk.bytes.len() as u64, place(5));
    }

    #[test]
    fn what_a_transaction_leaves_behind_is_forgotten() {
        let (mut gather, mut disk) = (Gather::new(), Disk::default());
        frame(&mut gather, &mut disk, 0, 1, true);
        frame(&mut gather, &mut disk, 1, 2, false);
        gather.forget();
        assert_eq!(frame(&mut gather, &mut disk, 1, 3, true), WHOLE);
        assert_eq!(disk.bytes[place(1) as usize], 3);
        assert_eq!(disk.bytes.len() as u64, place(2));
    }

    #[test]
    fn many_frames_go_in_several_calls_and_another_file_between_them_keeps_the_order() {
        let (mut gather, mut disk) = (Gather::new(), Disk::default());
        let frames = 3 * BYTES_MAX as u64 / FRAME_BYTES;
        for number in 0..frames {
            frame(&mut gather, &mut disk, number, 1, number + 1 == frames);
            assert!(gather.bytes.len() <= BYTES_MAX);
        }
        assert_eq!(disk.bytes.len() as u64, place(frames));
        assert!(disk.calls < 8, "{} calls", disk.calls);
        frame(&mut gather, &mut disk, frames, 2, false);
        let mut order = Vec::new();
        gather.write(FILE + 1, b"other", 0, |file, bytes, _| {
            order.push(file);
            bytes.len() as Returned
        });
        assert_eq!(order, [FILE, FILE + 1]);
    }
}
