//! Rules of HTTP for field lists (RFC 9113 section 8.2, 8.3): legal names and values,
//! pseudo-fields, fields that belong to HTTP/1.1 only, `content-length`.
//!
//! Pure functions over a decoded list. An error is a malformed message, which is a stream error of
//! type PROTOCOL_ERROR (section 8.1.1). Leaves the meaning of fields to the driver.

use super::hpack::HeaderList;

/// The reason why a list is malformed, for the trace.
pub(crate) type Malformed = &'static str;

/// Facts of a request or response that the connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Negative if absent.
    pub(crate) content_length: i64,
    /// Response: 100 to 999. Request: 0.
    pub(crate) status: u16,
}

/// The pseudo-fields of a request, as far as seen.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
}

/// Checks a request (sections 8.3, 8.3.1).
pub(crate) fn check_request(list: &HeaderList) -> Result<Facts, Malformed> {
    let mut pseudo = Pseudo::default();
    let mut regular = Regular::default();
    for (name, value) in list {
        check_value(value)?;
        if name.first() != Some(&b':') {
            regular.check(name, value)?;
            continue;
        }
        if regular.seen {
            return Err("pseudo-field after a regular field");
        }
        let place = match name {
            b":method" => &mut pseudo.method,
            b":scheme" => &mut pseudo.scheme,
            b":path" => &mut pseudo.path,
            b":authority" => &mut pseudo.authority,
            _ => return Err("unknown pseudo-field in a request"),
        };
        if place.replace(value).is_some() {
            return Err("repeated pseudo-field");
        }
    }
    check_request_target(&pseudo)?;
    if let (Some(host), Some(authority)) = (regular.host, pseudo.authority)
        && !host.eq_ignore_ascii_case(authority)
    {
        return Err("host differs from :authority");
    }
    Ok(Facts {
        content_length: regular.content_length,
        status: 0,
    })
}

fn check_request_target(pseudo: &Pseudo<'_>) -> Result<(), Malformed> {
    let method = pseudo.method.ok_or("no :method")?;
    if method.is_empty() {
        return Err("empty :method");
    }
    if method == b"CONNECT" {
        // Section 8.5. Extended CONNECT (RFC 8441) is not announced, so its pseudo-field is unknown
        // here.
        if pseudo.scheme.is_some() || pseudo.path.is_some() {
            return Err(":scheme or :path in CONNECT");
        }
        return pseudo.authority.map(|_| ()).ok_or("CONNECT without :authority");
    }
    let scheme = pseudo.scheme.ok_or("no :scheme")?;
    let path = pseudo.path.ok_or("no :path")?;
    if scheme.is_empty() {
        return Err("empty :scheme");
    }
    match path.first() {
        Some(b'/') => {}
        Some(b'*') if path.len() == 1 && method == b"OPTIONS" => {}
        _ => return Err(":path is neither absolute nor *"),
    }
    if pseudo
        .authority
        .is_some_and(|authority| authority.contains(&b'@'))
    {
        return Err("user information in :authority");
    }
    Ok(())
}

/// Checks a response (section 8.3.2), interim or final.
pub(crate) fn check_response(list: &HeaderList) -> Result<Facts, Malformed> {
    let mut status = None;
    let mut regular = Regular::default();
    for (name, value) in list {
        check_value(value)?;
        if name.first() != Some(&b':') {
            regular.check(name, value)?;
            continue;
        }
        if regular.seen {
            return Err("pseudo-field after a regular field");
        }
        if name != b":status" {
            return Err("unknown pseudo-field in a response");
        }
        let &[hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = value else {
            return Err(":status is not three digits");
        };
        let digit = |byte: u8| u16::from(byte - b'0');
        let number = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
        if status.replace(number).is_some() {
            return Err("repeated pseudo-field");
        }
    }
    match status {
        None => Err("no :status"),
        Some(101) => Err("status 101 does not exist in HTTP/2"),
        Some(status) => Ok(Facts {
            content_length: regular.content_length,
            status,
        }),
    }
}

/// Checks trailers (section 8.1): no pseudo-fields.
pub(crate) fn check_trailers(list: &HeaderList) -> Result<(), Malformed> {
    let mut regular = Regular::default();
    for (name, value) in list {
        if name.first() == Some(&b':') {
            return Err("pseudo-field in trailers");
        }
        check_value(value)?;
        regular.check(name, value)?;
    }
    Ok(())
}

/// Facts found in the regular fields so far.
struct Regular<'a> {
    seen: bool,
    content_length: i64,
    host: Option<&'a [u8]>,
}

impl Default for Regular<'_> {
    fn default() -> Self {
        Self {
            seen: false,
            content_length: -1,
            host: None,
        }
    }
}

impl<'a> Regular<'a> {
    #[inline]
    fn check(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Malformed> {
        self.seen = true;
        check_name(name)?;
        // By length first: nearly all names of real requests need only one comparison.
        match name.len() {
            2 if name == b"te" && value != b"trailers" => Err("te is not trailers"),
            4 if name == b"host" => {
                self.host = Some(value);
                Ok(())
            }
            7 if name == b"upgrade" => Err("upgrade belongs to HTTP/1.1"),
            10 if name == b"connection" || name == b"keep-alive" => {
                Err("connection fields belong to HTTP/1.1")
            }
            14 if name == b"content-length" => self.content_length(value),
            16 if name == b"proxy-connection" => Err("proxy-connection belongs to HTTP/1.1"),
            17 if name == b"transfer-encoding" => Err("transfer-encoding belongs to HTTP/1.1"),
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        // 18 digits stay far below 2^63.
        if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
            return Err("content-length is not a number");
        }
        let length = value
            .iter()
            .fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        if self.content_length >= 0 && self.content_length != length {
            return Err("content-length fields differ");
        }
        self.content_length = length;
        Ok(())
    }
}

/// Checks a name (section 8.2.1): no control characters, space, upper case, bytes from 0x7f, and no
/// colon.
#[inline]
fn check_name(name: &[u8]) -> Result<(), Malformed> {
    // A fold without an early exit: names are short and nearly always legal.
    let illegal = name
        .iter()
        .fold(false, |bad, byte| bad | NAME_ILLEGAL[*byte as usize]);
    if illegal || name.is_empty() {
        return Err("illegal field name");
    }
    Ok(())
}

static NAME_ILLEGAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte <= 0x20 || byte >= 0x7f || (byte >= 0x41 && byte <= 0x5a) || byte == b':' as usize;
        byte += 1;
    }
    table
};

/// Checks a value (section 8.2.1): no NUL, CR, LF, and no white space at either end.
#[inline]
fn check_value(value: &[u8]) -> Result<(), Malformed> {
    let illegal = value.iter().fold(false, |bad, byte| {
        bad | (*byte == 0) | (*byte == b'\r') | (*byte == b'\n')
    });
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if illegal || blank(value.first()) || blank(value.last()) {
        return Err("illegal field value");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "here"),
    ];

    fn list(fields: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    fn request_with(extra: &[(&str, &str)]) -> Result<Facts, Malformed> {
        check_request(&list(&[&GET[..], extra].concat()))
    }

    #[test]
    fn a_plain_request_is_well_formed() {
        assert_eq!(request_with(&[]).map(|facts| facts.content_length), Ok(-1));
        let facts = request_with(&[
            ("te", "trailers"),
            ("content-length", "42"),
            ("host", "HERE"),
            ("x", ""),
        ]);
        assert_eq!(facts.map(|facts| facts.content_length), Ok(42));
    }

    #[test]
    fn malformed_regular_fields_are_found() {
        for (name, value) in [
            ("Upper", "x"),
            ("", "x"),
            ("with space", "x"),
            ("co:lon", "x"),
            ("high\u{80}", "x"),
            ("x", "line\nfeed"),
            ("x", "nul\0"),
            ("x", " leading"),
            ("x", "trailing\t"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("host", "elsewhere"),
            ("content-length", ""),
            ("content-length", "-1"),
            ("content-length", "1x"),
            ("content-length", "9999999999999999999"),
        ] {
            assert!(request_with(&[(name, value)]).is_err(), "{name}: {value}");
        }
        assert!(request_with(&[("content-length", "1"), ("content-length", "2")]).is_err());
        assert!(request_with(&[("content-length", "2"), ("content-length", "2")]).is_ok());
    }

    #[test]
    fn malformed_pseudo_fields_are_found() {
        for (missing, (name, _)) in GET.iter().enumerate().take(3) {
            let kept = GET.iter().enumerate().filter(|(at, _)| *at != missing);
            let fields: Vec<_> = kept.map(|(_, field)| *field).collect();
            assert!(check_request(&list(&fields)).is_err(), "without {name}");
        }
        for field in GET {
            assert!(request_with(&[field]).is_err(), "{} twice", field.0);
            assert!(request_with(&[("x", "y"), field]).is_err());
        }
        for extra in [(":status", "200"), (":protocol", "websocket"), (":", "x")] {
            assert!(request_with(&[extra]).is_err(), "{}", extra.0);
        }
        let with_path = |method, path| {
            check_request(&list(&[
                (":method", method),
                (":scheme", "http"),
                (":path", path),
            ]))
        };
        assert!(with_path("GET", "").is_err());
        assert!(with_path("GET", "x").is_err());
        assert!(with_path("GET", "*").is_err());
        assert!(with_path("OPTIONS", "*").is_ok());
        assert!(with_path("", "/").is_err());
        let late = [("x", "y"), GET[0], GET[1], GET[2]];
        assert_eq!(
            check_request(&list(&late)),
            Err("pseudo-field after a regular field")
        );
        let user = [GET[0], GET[1], GET[2], (":authority", "me@here")];
        assert!(check_request(&list(&user)).is_err());
    }

    #[test]
    fn connect_has_an_authority_and_nothing_else() {
        assert!(check_request(&list(&[(":method", "CONNECT"), (":authority", "a:1")])).is_ok());
        assert!(check_request(&list(&[(":method", "CONNECT")])).is_err());
        assert!(
            check_request(&list(&[
                (":method", "CONNECT"),
                (":authority", "a:1"),
                (":path", "/")
            ]))
            .is_err()
        );
    }

    #[test]
    fn responses_have_one_status() {
        let status = |value| check_response(&list(&[(":status", value)])).map(|facts| facts.status);
        assert_eq!(status("200"), Ok(200));
        assert_eq!(status("100"), Ok(100));
        for bad in ["", "20", "2000", "0200", "20x", "099", "101"] {
            assert!(status(bad).is_err(), "{bad}");
        }
        assert!(check_response(&list(&[])).is_err());
        assert!(check_response(&list(&[(":status", "200"), (":status", "200")])).is_err());
        assert!(check_response(&list(&[(":status", "200"), (":path", "/")])).is_err());
        assert!(check_response(&list(&[("x", "y"), (":status", "200")])).is_err());
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        assert!(check_trailers(&list(&[("grpc-status", "0")])).is_ok());
        assert!(check_trailers(&list(&[(":status", "200")])).is_err());
        assert!(check_trailers(&list(&[("connection", "close")])).is_err());
    }
}
