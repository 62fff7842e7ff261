//! Other programs, bounded in time: none of them can hold a run up for ever, and each is ended by
//! its own id.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::logs::Failure;

/// How long a killed process may take to go. It goes at once, unless the kernel holds it in a write
/// that does not end.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Runs a command to its end and returns its output; kills it, which is an error, when it takes
/// longer than `limit`. Not for commands that leave processes running, which would keep the pipes
/// open.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<Output, Failure> {
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    // Read meanwhile: a full pipe would stop the program.
    let stdout = read_all(child.stdout.take().ok_or("no pipe")?);
    let stderr = read_all(child.stderr.take().ok_or("no pipe")?);
    let status = wait(&mut child, command, limit)?;
    let joined = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output {
        status,
        stdout: joined(stdout),
        stderr: joined(stderr),
    })
}

/// Runs a command whose errors are shown with ours, and that may leave processes running.
pub(crate) fn status(command: &mut Command, limit: Duration) -> Result<ExitStatus, Failure> {
    let mut child = spawn(command.stdout(Stdio::null()))?;
    wait(&mut child, command, limit)
}

fn spawn(command: &mut Command) -> Result<Child, Failure> {
    let spawned = command.stdin(Stdio::null()).spawn();
    spawned.map_err(|error| format!("{} does not start: {error}", name(command)).into())
}

fn wait(child: &mut Child, command: &Command, limit: Duration) -> Result<ExitStatus, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            let name = name(command);
            end(child, &name);
            return Err(format!("{name} has not ended within {} s and was killed", limit.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Kills a process and waits until it is gone, but not for ever.
pub(crate) fn end(child: &mut Child, name: &str) {
    // Fails only where it has ended already.
    let _ = child.kill();
    let deadline = Instant::now() + GONE_WITHIN;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    eprintln!("{name}, process {}, was killed but is not gone", child.id());
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is all there is to show.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let began = Instant::now();
        let result = output(Command::new("sleep").arg("60"), Duration::from_millis(100));
        assert!(result.unwrap_err().to_string().contains("was killed"));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_a_command_prints_is_returned() {
        let output = output(Command::new("echo").arg("word"), Duration::from_secs(30)).unwrap();
        assert_eq!(output.stdout, b"word\n");
    }
}
