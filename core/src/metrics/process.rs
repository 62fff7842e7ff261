//! Figures of the process from the system, under the names that Prometheus' client libraries use,
//! and of its disk.

use std::{fmt::Write as _, fs, path::Path};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// One figure: name, kind, help, value.
type Figure = (&'static str, &'static str, &'static str, f64);

/// Writes the figures of `/proc` about this process. Unreadable ones are left out.
pub(super) fn render(out: &mut String) {
    let mut figures: Vec<Figure> = Vec::with_capacity(8);
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(Stat::parse)
    {
        let ticks = clock_ticks_per_second() as f64;
        figures.extend([
            (
                "process_cpu_seconds_total",
                "counter",
                "User and system time of the process.",
                stat.ticks as f64 / ticks,
            ),
            (
                "process_threads",
                "gauge",
                "Threads of the process.",
                stat.threads as f64,
            ),
            (
                "process_virtual_memory_bytes",
                "gauge",
                "Address space of the process.",
                stat.virtual_bytes as f64,
            ),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Memory of the process.",
                (stat.resident_pages * page_size() as u64) as f64,
            ),
        ]);
        if let Some(boot) = boot_time() {
            let start = boot as f64 + stat.start_ticks as f64 / ticks;
            figures.push((
                "process_start_time_seconds",
                "gauge",
                "Start of the process, seconds since 1970.",
                start,
            ));
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The folder itself is open while it is read.
        let open = open.count().saturating_sub(1) as f64;
        figures.push(("process_open_fds", "gauge", "Open files and connections.", open));
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        figures.push((
            "process_max_fds",
            "gauge",
            "Open files and connections at the most.",
            max as f64,
        ));
    }
    for figure in figures {
        write_figure(out, figure);
    }
}

/// Writes the sizes of the store and the log in a data directory, and the free room of the disk.
pub(crate) fn render_disk(data_dir: &Path, out: &mut String) {
    let store: u64 = ["keyvalue.db", "keyvalue.db-wal"]
        .iter()
        .map(|name| file_bytes(&data_dir.join(name)))
        .sum();
    let log: u64 = fs::read_dir(data_dir.join("wal"))
        .map(|entries| entries.flatten().map(|entry| file_bytes(&entry.path())).sum())
        .unwrap_or_default();
    let figures = [
        (
            "prism_store_bytes",
            "gauge",
            "Bytes of the embedded store's files.",
            store as f64,
        ),
        (
            "prism_log_bytes",
            "gauge",
            "Bytes of the log's files, those prepared ahead among them.",
            log as f64,
        ),
    ];
    for figure in figures {
        write_figure(out, figure);
    }
    if let Ok(disk) = rustix::fs::statvfs(data_dir) {
        let free = disk.f_bavail as f64 * disk.f_frsize as f64;
        write_figure(
            out,
            (
                "prism_disk_free_bytes",
                "gauge",
                "Bytes that the data directory's file system has left.",
                free,
            ),
        );
        let size = disk.f_blocks as f64 * disk.f_frsize as f64;
        write_figure(
            out,
            (
                "prism_disk_bytes",
                "gauge",
                "Bytes of the data directory's file system.",
                size,
            ),
        );
    }
}

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

fn write_figure(out: &mut String, (name, kind, help, value): Figure) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

/// Fields of `/proc/self/stat` that are used here (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name is in parentheses and may hold any character, these too.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The first of them is the third of the line.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Time at which the machine was started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name_of_the_program() {
        let line =
            "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 130 70 0 0 20 0 11 0 5000 7000000 900 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                ticks: 200,
                threads: 11,
                start_ticks: 5000,
                virtual_bytes: 7_000_000,
                resident_pages: 900
            }
        );
        assert_eq!(Stat::parse("no parentheses"), None);
    }
}
