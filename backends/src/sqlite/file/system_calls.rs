//! The system calls of SQLite's own VFS for `unix` that go through [`Gather`]: `pwrite64` and
//! `pread64`, replaced by the interface that SQLite has for that (`xSetSystemCall`,
//! <https://www.sqlite.org/c3ref/vfs.html>).
//!
//! Nothing is gathered outside of [`gathered`], which the writer calls for each of its
//! transactions; elsewhere a replaced call costs a look at a variable of the thread. Unsafe,
//! because the interface is one of C. With it the writer does a tenth more puts in a closed loop,
//! and the median at 85,000 puts/s is a quarter shorter: see `docs/BENCHMARKS.md`.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use rusqlite::ffi;

use super::gather::{Gather, Returned};

thread_local! {
    static GATHERS: Cell<bool> = const { Cell::new(false) };
    static GATHER: RefCell<Gather> = const { RefCell::new(Gather::new()) };
}

/// Whether SQLite has taken the replacements; asked of it once.
static REPLACED: OnceLock<bool> = OnceLock::new();

/// Runs one transaction of this thread. The frames that its commit appends are gathered; when it
/// returns, all of a successful commit have been written.
pub(in crate::sqlite) fn gathered<T>(transaction: impl FnOnce() -> T) -> T {
    /// Also when the transaction panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            GATHERS.set(false);
            GATHER.with_borrow_mut(Gather::forget);
        }
    }
    GATHERS.set(REPLACED.get() == Some(&true));
    let _end = End;
    transaction()
}

/// Replaces the two calls for all connections of the process, once. To be called before a store's
/// first connection.
pub(in crate::sqlite) fn replace_once() {
    REPLACED.get_or_init(replace);
}

/// Says whether SQLite has taken both.
fn replace() -> bool {
    // SAFETY: a type, by which SQLite keeps all calls; it casts each to its own before it is
    // called.
    type Kept = unsafe extern "C" fn();
    // SAFETY: a type, too, that of `pread64`.
    type Read = unsafe extern "C" fn(c_int, *mut c_void, usize, i64) -> Returned;
    // SAFETY: a type, too, that of `pwrite64`.
    type Write = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> Returned;
    // SAFETY: a null name asks for the default VFS, which SQLite made at its initialization and
    // never frees.
    let Some(vfs) = (unsafe { ffi::sqlite3_vfs_find(std::ptr::null()).as_mut() }) else {
        return false;
    };
    let (Some(get), Some(set)) = (vfs.xGetSystemCall, vfs.xSetSystemCall) else {
        return false;
    };
    let mut put = |names: [&CStr; 2], call: Kept| {
        // SQLite uses one of the two, as it was built; offsets have 64 bits with both. The other is
        // null. SAFETY: `get` belongs to this VFS, and the name outlives the call.
        let used = names
            .into_iter()
            .find(|name| unsafe { get(vfs, name.as_ptr()).is_some() });
        // SAFETY: as above, and the function, of the signature that SQLite casts it to, lives as
        // long as the process. Threads with connections that others opened may call it meanwhile:
        // they find the old one or the new one, which do the same where nothing is gathered.
        used.is_some_and(|name| unsafe { set(vfs, name.as_ptr(), Some(call)) == ffi::SQLITE_OK })
    };
    // SAFETY: only the type changes under which SQLite keeps the function.
    let (read, write) = unsafe {
        (
            std::mem::transmute::<Read, Kept>(read),
            std::mem::transmute::<Write, Kept>(write),
        )
    };
    // Reads first: with the other alone, what is on its way could not be read.
    put([c"pread", c"pread64"], read) && put([c"pwrite", c"pwrite64"], write)
}

/// `pwrite64`, perhaps later.
// SAFETY: for callers as with `pwrite64`: `buffer` is readable for `length` bytes.
unsafe extern "C" fn write(file: c_int, buffer: *const c_void, length: usize, offset: i64) -> Returned {
    if !GATHERS.get() || buffer.is_null() || offset < 0 {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::pwrite64(file, buffer, length, offset) };
    }
    // SAFETY: the caller promises that the buffer is readable for `length` bytes, and SQLite does
    // not change it before this call returns.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    GATHER.with_borrow_mut(|gather| gather.write(file, bytes, offset.cast_unsigned(), write_now))
}

/// `pread64`, after what was gathered.
// SAFETY: for callers as with `pread64`: `buffer` is writable for `length` bytes.
unsafe extern "C" fn read(file: c_int, buffer: *mut c_void, length: usize, offset: i64) -> Returned {
    if GATHERS.get() {
        let flushed = GATHER.with_borrow_mut(|gather| gather.flush(write_now));
        if flushed <= 0 {
            return -1;
        }
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::pread64(file, buffer, length, offset) }
}

fn write_now(file: c_int, bytes: &[u8], offset: u64) -> Returned {
    // SAFETY: the slice is readable for as long as it says.
    unsafe { libc::pwrite64(file, bytes.as_ptr().cast(), bytes.len(), offset.cast_signed()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogId, LogPosition, NamespaceId};
    use crate::sqlite::{self, Options};

    #[test]
    fn sqlite_takes_the_replacements_and_uses_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut parts =
            sqlite::open(&directory.path().join("items.db"), Options::default()).expect("a store");
        assert_eq!(REPLACED.get(), Some(&true));
        assert!(!GATHER.with_borrow(Gather::expects_a_frame));
        let position = LogPosition {
            log: LogId(1),
            lane: 1,
            namespace: NamespaceId(1),
            lsn: 1,
        };
        let applied = parts.writer.apply_at(&[], &[position], &mut Vec::new());
        assert_eq!(applied, Ok(()));
        assert!(GATHER.with_borrow(Gather::expects_a_frame), "its commit came by");
    }

    #[test]
    fn nothing_is_gathered_outside_of_a_transaction() {
        replace_once();
        assert!(gathered(|| GATHERS.get()));
        assert!(!GATHERS.get());
        let panicked = std::panic::catch_unwind(|| gathered(|| panic!("in a transaction")));
        assert!(panicked.is_err() && !GATHERS.get());
    }
}
