//! The key file of an encrypted log: from a path to the key that wraps every segment's data key.
//!
//! Promises: a file that anybody but its owner may read or write is refused; errors name the file,
//! the fault and what is allowed, and never quote its content. Leaves to others: when a log is
//! encrypted at all.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use prism_wal::cipher::{KEY_BYTES, KeyEncryptionKey, SecretKey};
use zeroize::Zeroizing;

/// The reason why a key file was refused.
#[derive(Debug)]
pub struct KeyFileError {
    /// The file.
    pub path: PathBuf,
    /// The fault.
    pub problem: KeyFileProblem,
}

/// Faults of a key file.
#[derive(Debug)]
pub enum KeyFileProblem {
    /// The file cannot be opened or read.
    Unreadable(std::io::Error),
    /// The path is a directory, a device or the like.
    NotAFile,
    /// The group or others have rights to it: its permission bits.
    Exposed(u32),
    /// Another length than a key's: the number of its bytes, counted to one more than a key can
    /// have.
    Length(usize),
    /// The length of a key in hexadecimal, with other characters.
    NotHex,
    /// Zeros in all bytes of the key: a placeholder.
    Zero,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            KeyFileProblem::Unreadable(error) => {
                write!(formatter, "cannot read the key file {path}: {error}")
            }
            KeyFileProblem::NotAFile => write!(formatter, "the key file {path} is not a regular file"),
            KeyFileProblem::Exposed(mode) => write!(
                formatter,
                "the key file {path} may be used by others than its owner (mode {mode:04o})"
            ),
            KeyFileProblem::Length(bytes) if *bytes >= FILE_BYTES_MAX => {
                write!(
                    formatter,
                    "the key file {path} holds no key: it is longer than one"
                )
            }
            KeyFileProblem::Length(bytes) => {
                write!(
                    formatter,
                    "the key file {path} holds no key: it is {bytes} bytes long"
                )
            }
            KeyFileProblem::NotHex => write!(
                formatter,
                "the key file {path} holds no key: it is as long as 64 hexadecimal digits and has others in it"
            ),
            KeyFileProblem::Zero => write!(formatter, "the key file {path} holds no key: it is all zeros"),
        }
    }
}

impl std::error::Error for KeyFileError {}

impl KeyFileError {
    /// Remedy for it: one sentence.
    #[must_use]
    pub fn solution(&self) -> String {
        let path = self.path.display();
        match &self.problem {
            KeyFileProblem::Unreadable(_) | KeyFileProblem::NotAFile => {
                "name a file that this user may read".to_owned()
            }
            KeyFileProblem::Exposed(_) => format!("chmod 600 {path}"),
            KeyFileProblem::Length(_) | KeyFileProblem::NotHex | KeyFileProblem::Zero => format!(
                "a key is 32 random bytes, or 64 hexadecimal digits and a newline if you like; \
                 `(umask 077; head -c 32 /dev/urandom > {path})` makes one"
            ),
        }
    }
}

/// One byte more than the longest key: 64 digits, carriage return, newline.
const FILE_BYTES_MAX: usize = 67;

/// Reads a key: 32 raw bytes or 64 hexadecimal digits, either with or without one newline at the
/// end.
///
/// # Errors
/// [`KeyFileError`], also when anybody but the owner has rights to the file.
pub fn read_key_file(path: &Path) -> Result<KeyEncryptionKey, KeyFileError> {
    let failed = |problem| KeyFileError {
        path: path.to_owned(),
        problem,
    };
    // Not blocking, so that a pipe in the place of the file cannot hang the program.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let mut file = opened.map_err(|error| failed(KeyFileProblem::Unreadable(error)))?;
    let metadata = file
        .metadata()
        .map_err(|error| failed(KeyFileProblem::Unreadable(error)))?;
    if !metadata.is_file() {
        return Err(failed(KeyFileProblem::NotAFile));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(failed(KeyFileProblem::Exposed(metadata.mode() & 0o7777)));
    }
    let mut bytes = Zeroizing::new([0; FILE_BYTES_MAX]);
    let mut length = 0;
    while length < FILE_BYTES_MAX {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(KeyFileProblem::Unreadable(error))),
        }
    }
    let key = parse(&bytes[..length]).map_err(failed)?;
    Ok(KeyEncryptionKey::new(SecretKey::new(*key)))
}

fn parse(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyFileProblem> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let line = match bytes {
        [line @ .., b'\r', b'\n'] if line.len() == 2 * KEY_BYTES => line,
        [line @ .., b'\n'] if [KEY_BYTES, 2 * KEY_BYTES].contains(&line.len()) => line,
        bytes => bytes,
    };
    if line.len() == KEY_BYTES {
        key.copy_from_slice(line);
    } else if line.len() == 2 * KEY_BYTES {
        for (byte, pair) in key.iter_mut().zip(line.chunks_exact(2)) {
            let digit = |character: u8| char::from(character).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(KeyFileProblem::NotHex);
            };
            *byte = u8::try_from(high * 16 + low).expect("two digits make one byte");
        }
    } else {
        return Err(KeyFileProblem::Length(bytes.len()));
    }
    if key.iter().all(|byte| *byte == 0) {
        return Err(KeyFileProblem::Zero);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("wal.key");
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("our own file");
        (directory, path)
    }

    #[test]
    fn raw_bytes_and_hexadecimal_digits_are_the_same_key() {
        let raw: Vec<u8> = (0..32).map(|byte| byte * 8 + 1).collect();
        let mut hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = KeyEncryptionKey::new(SecretKey::new(raw.clone().try_into().expect("32 bytes")));
        let with = |bytes: &[u8], end: &str| [bytes, end.as_bytes()].concat();
        let mut contents = vec![raw.clone(), with(&raw, "\n")];
        contents.extend(["", "\n", "\r\n"].map(|end| with(hex.as_bytes(), end)));
        hex.make_ascii_uppercase();
        contents.push(hex.into_bytes());
        for content in contents {
            let (_directory, path) = file(&content, 0o600);
            let key = read_key_file(&path).expect("a good key");
            assert_eq!((key.id, key.key), (expected.id, expected.key.clone()));
        }
        // A raw key may end with a byte that equals a newline.
        let (_directory, path) = file(&[b'\n'; 32], 0o400);
        assert_eq!(
            read_key_file(&path).expect("a good key").key,
            SecretKey::new([b'\n'; 32])
        );
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_quoted() {
        for length in (0..100).filter(|length| ![32, 64].contains(length)) {
            let (_directory, path) = file(&vec![b'a'; length], 0o600);
            let error = read_key_file(&path).expect_err("not a key");
            assert!(
                matches!(error.problem, KeyFileProblem::Length(_)),
                "{length}: {error}"
            );
            let text = format!("{error} {}", error.solution());
            assert!(
                text.contains("wal.key") && !text.contains("aaa") && text.contains("64 hexadecimal digits"),
                "{text}"
            );
        }
        for (content, problem) in [
            (vec![b'g'; 64], "others in it"),
            (vec![0; 32], "all zeros"),
            (vec![b'0'; 64], "all zeros"),
        ] {
            let (_directory, path) = file(&content, 0o600);
            let text = read_key_file(&path).expect_err("not a key").to_string();
            assert!(text.contains(problem), "{text}");
        }
    }

    #[test]
    fn a_file_that_others_may_use_is_refused_before_it_is_read() {
        for mode in [0o604, 0o640, 0o620, 0o602, 0o644, 0o666, 0o610] {
            let (_directory, path) = file(&[7; 32], mode);
            let error = read_key_file(&path).expect_err("exposed");
            assert!(
                matches!(error.problem, KeyFileProblem::Exposed(found) if found == mode),
                "{error}"
            );
            assert!(error.solution().starts_with("chmod 600 "));
        }
    }

    #[test]
    fn directories_missing_files_and_pipes_are_refused_at_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let error = read_key_file(directory.path()).expect_err("a directory");
        assert!(matches!(error.problem, KeyFileProblem::NotAFile), "{error}");
        let error = read_key_file(&directory.path().join("none")).expect_err("missing");
        assert!(matches!(error.problem, KeyFileProblem::Unreadable(_)), "{error}");
        let error = read_key_file(Path::new("/dev/null")).expect_err("a device");
        assert!(matches!(error.problem, KeyFileProblem::NotAFile), "{error}");
    }
}
