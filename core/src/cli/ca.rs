//! `prism ca`: a development authority in a folder. It signs the certificates of a gateway and of
//! services; production has an authority of its own (SPIRE, for example).

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::output::Printer;
use super::{Exit, Failure};

/// Files of the authority within its folder.
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const TRUST_DOMAIN: &str = "trust-domain";
/// Folder of the authority where none is named.
pub(super) const FOLDER: &str = "prism-ca";
const DAY: Duration = Duration::from_secs(86_400);
const AUTHORITY_DAYS: u32 = 365;
const GATEWAY_DAYS: u32 = 90;
/// Clocks of others may be behind by that much.
const BACKDATED: Duration = Duration::from_secs(300);

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Make an authority, with a certificate for a gateway on this machine
    Init(InitArgs),
    /// Sign a certificate for a service, valid for a day
    Issue(IssueArgs),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Folder of the authority
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    dir: PathBuf,
    /// Domain of the identities that it signs
    #[arg(long, value_name = "NAME", default_value = "dev.prism")]
    trust_domain: String,
    /// Names and addresses of the gateway, with commas between them
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1,::1"
    )]
    gateway: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// Name of the service
    #[arg(long)]
    service: String,
    /// Team that it belongs to: members of a namespace's owning team may do everything with it
    #[arg(long)]
    team: Option<String>,
    /// Folder of the authority
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    authority: PathBuf,
    /// Folder for SERVICE.crt and SERVICE.key; made when missing [default: SERVICE within the
    /// authority's]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: &CaCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        CaCommand::Init(args) => init(args, printer),
        CaCommand::Issue(args) => {
            let authority = Authority::open(&args.authority)?;
            let issued = authority.issue(&args.service, args.team.as_deref(), args.out.as_deref())?;
            printer.done(&issued)
        }
    }
}

fn init(args: &InitArgs, printer: &mut Printer) -> Result<(), Failure> {
    let wrong = |what: String| Failure::new(Exit::Usage, what);
    if !is_name(&args.trust_domain) || args.trust_domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(wrong(format!(
            "{:?} is no trust domain; allowed: lower-case letters, digits, dots, hyphens and underscores",
            args.trust_domain
        )));
    }
    make_folder(&args.dir)?;
    let mut params = CertificateParams::new([]).map_err(|error| wrong(error.to_string()))?;
    let name = format!("Prism development authority of {}", args.trust_domain);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, DAY * AUTHORITY_DAYS);
    let key = KeyPair::generate().map_err(|error| wrong(error.to_string()))?;
    let key_text = key.serialize_pem();
    let issuer = CertifiedIssuer::self_signed(params, key).map_err(|error| wrong(error.to_string()))?;
    write_new(&args.dir.join(KEY), key_text.as_bytes())?;
    write_new(&args.dir.join(CERTIFICATE), issuer.pem().as_bytes())?;
    write_new(&args.dir.join(TRUST_DOMAIN), args.trust_domain.as_bytes())?;
    let mut params =
        CertificateParams::new(args.gateway.clone()).map_err(|error| wrong(format!("--gateway: {error}")))?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_validity(&mut params, DAY * GATEWAY_DAYS);
    sign(params, &issuer, &args.dir, "gateway")?;
    let dir = args.dir.display();
    printer.done(&format!("Authority of {} made in {dir}", args.trust_domain))?;
    printer.line("")?;
    printer.line("The gateway's configuration:")?;
    printer.line("  tls:")?;
    printer.line(&format!("    cert_file: {dir}/gateway.crt"))?;
    printer.line(&format!("    key_file: {dir}/gateway.key"))?;
    printer.line(&format!("    client_ca_file: {dir}/{CERTIFICATE}"))?;
    printer.line("  identity:")?;
    printer.line(&format!("    trust_domain: {}", args.trust_domain))?;
    printer.line("    admins: me")?;
    printer.line("")?;
    printer.line("Credentials for yourself:")?;
    printer.line(&format!("  prism ca issue --service me --authority {dir}"))
}

/// An authority that signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    folder: PathBuf,
}

impl Authority {
    /// Whether a folder holds one.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(KEY).is_file()
    }

    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let fail = |what: String| {
            let what = format!("no authority in {}: {what}", folder.display());
            Failure::new(Exit::Usage, what).solution("`prism ca init` makes one")
        };
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name)).map_err(|error| fail(format!("{name}: {error}")))
        };
        let key = KeyPair::from_pem(&read(KEY)?).map_err(|error| fail(format!("{KEY}: {error}")))?;
        let issuer = Issuer::from_ca_cert_pem(&read(CERTIFICATE)?, key)
            .map_err(|error| fail(format!("{CERTIFICATE}: {error}")))?;
        Ok(Self {
            issuer,
            trust_domain: read(TRUST_DOMAIN)?.trim().to_owned(),
            folder: folder.to_owned(),
        })
    }

    /// Signs a certificate for a service. Returns a sentence with the names of the files.
    pub(super) fn issue(
        &self,
        service: &str,
        team: Option<&str>,
        out: Option<&Path>,
    ) -> Result<String, Failure> {
        for name in [Some(service), team].into_iter().flatten() {
            if !is_name(name) {
                let allowed = "letters, digits, dots, hyphens, underscores";
                let what = format!("{name:?} cannot be part of an identity; allowed: {allowed}");
                return Err(Failure::new(Exit::Usage, what));
            }
        }
        let fail = |error: rcgen::Error| Failure::new(Exit::No, error.to_string());
        let team = team.map_or_else(String::new, |team| format!("/team/{team}"));
        let id = format!("spiffe://{}{team}/service/{service}", self.trust_domain);
        let mut params = CertificateParams::new([]).map_err(fail)?;
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(fail)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, DAY);
        let folder = out.map_or_else(|| self.folder.join(service), Path::to_owned);
        make_folder(&folder)?;
        sign(params, &self.issuer, &folder, service)?;
        Ok(format!(
            "Credentials issued: {service}.crt, {service}.key in {}, valid 24h ({id})",
            folder.display()
        ))
    }
}

/// Whether a word may stand in a SPIFFE id.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

fn sign(
    mut params: CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
    folder: &Path,
    name: &str,
) -> Result<(), Failure> {
    let fail = |error: rcgen::Error| Failure::new(Exit::No, error.to_string());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(fail)?;
    let certificate = params.signed_by(&key, issuer).map_err(fail)?;
    write_over(
        &folder.join(format!("{name}.key")),
        key.serialize_pem().as_bytes(),
    )?;
    write_over(&folder.join(format!("{name}.crt")), certificate.pem().as_bytes())
}

fn set_validity(params: &mut CertificateParams, time: Duration) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + since;
    params.not_before = now - BACKDATED;
    params.not_after = now + time;
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Failure::new(Exit::Usage, format!("cannot make {}: {error}", folder.display())))
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| {
        let failure = Failure::new(Exit::Usage, format!("cannot write {}: {error}", path.display()));
        failure.solution("name another folder with --dir, or remove the authority that is there")
    })
}

/// Writes a file by its whole, so that a gateway that looks at it never reads half of it.
fn write_over(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let next = path.with_extension("next");
    let _ = std::fs::remove_file(&next);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next);
    let written = file
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&next, path));
    written.map_err(|error| Failure::new(Exit::Usage, format!("cannot write {}: {error}", path.display())))
}
