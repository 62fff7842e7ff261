//! Figures of the listener's certificate.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// The figures. Zero as the end: there is no certificate.
#[derive(Debug, Default)]
pub struct CertificateMetrics {
    /// Seconds since 1970.
    end: AtomicU64,
    reload_failures: AtomicU64,
}

impl CertificateMetrics {
    /// Sets the end of the validity of the certificate in force.
    pub fn set_expiry(&self, end: SystemTime) {
        let seconds = end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.end.store(seconds.max(1), Ordering::Relaxed);
    }

    /// Counts files that could not be used.
    pub fn reload_failed(&self) {
        self.reload_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the figures, where there is a certificate.
    pub(super) fn render(&self, out: &mut String) {
        let end = self.end.load(Ordering::Relaxed);
        if end == 0 {
            return;
        }
        let failures = self.reload_failures.load(Ordering::Relaxed);
        let _ = writeln!(
            out,
            "# HELP prism_certificate_expiry_seconds End of the gateway's certificate, seconds since 1970.\n\
             # TYPE prism_certificate_expiry_seconds gauge\nprism_certificate_expiry_seconds {end}\n\
             # HELP prism_tls_reload_failures_total Changed certificate files that could not be used.\n\
             # TYPE prism_tls_reload_failures_total counter\nprism_tls_reload_failures_total {failures}"
        );
    }
}
