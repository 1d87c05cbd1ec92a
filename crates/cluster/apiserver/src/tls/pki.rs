//! The cluster's own certificate authority, its server certificate and the administrator's client
//! certificate: made at first start, kept in a folder, renewed when they come near their end.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::der;

/// Life of the authority; with it every kubeconfig changes.
const AUTHORITY_YEARS: i32 = 10;
/// Life of the other two.
const LEAF_YEARS: i32 = 2;
/// A certificate with less than this left is made anew at the next start.
const RENEW_BEFORE_DAYS: i32 = 180;
/// Clocks differ: a certificate holds since the day before it was made.
const BACKDATED_DAYS: i32 = 1;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("`{}` holds no {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A key or certificate could not be made.
    #[error("cannot make the certificate of `{name}`")]
    Make {
        /// Whose.
        name: &'static str,
        /// Why.
        source: rcgen::Error,
    },
}

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    key: String,
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    pub(crate) authority: Pair,
    pub(crate) server: Pair,
    pub(crate) admin: Pair,
}

impl Pair {
    pub(crate) fn key_pem(&self) -> &str {
        &self.key
    }

    pub(crate) fn certificate_der(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()
    }

    pub(crate) fn key_der(&self) -> Option<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()
    }

    fn not_after(&self) -> Option<String> {
        Some(der::certificate(&self.certificate_der()?)?.not_after)
    }
}

impl Pki {
    /// New ones that are kept nowhere.
    pub(crate) fn make(names: &[SanType], now: Timestamp) -> Result<Self, PkiError> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let authority = authority(today)?;
        let signer = signer(Path::new(""), &authority, today)?;
        let server = sign("apiserver", server_params(names, today), &signer)?;
        let admin = sign("admin", admin_params(today), &signer)?;
        Ok(Self { authority, server, admin })
    }

    /// Reads the folder, making what is missing or near its end. `names` are the host names and
    /// addresses of the server's certificate.
    pub(crate) fn open(dir: &Path, names: &[SanType], now: Timestamp) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Io { action: "make the folder", path: dir.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let today = now.to_zoned(TimeZone::UTC).date();
        let renew = today.saturating_add(RENEW_BEFORE_DAYS.days()).strftime("%Y%m%d").to_string();
        let fresh = |pair: &Pair| pair.not_after().is_some_and(|it| it > renew);
        let (ca, made) = match read(dir, "ca")?.filter(fresh) {
            Some(pair) => (pair, false),
            None => (authority(today)?, true),
        };
        if made {
            write(dir, "ca", &ca)?;
        }
        let signer = signer(dir, &ca, today)?;
        let leaf = |file: &'static str, params: CertificateParams| {
            // What an older authority signed is worth nothing under a new one.
            match read(dir, file)?.filter(fresh).filter(|_| !made) {
                Some(pair) => Ok(pair),
                None => {
                    let pair = sign(file, params, &signer)?;
                    write(dir, file, &pair)?;
                    Ok(pair)
                }
            }
        };
        let server = leaf("apiserver", server_params(names, today))?;
        let admin = leaf("admin", admin_params(today))?;
        Ok(Self { authority: ca, server, admin })
    }
}

impl Pki {
    /// A new certificate for servers at `hosts`, signed by the authority and kept nowhere.
    pub(crate) fn sign_for(&self, hosts: &[String], now: Timestamp) -> Result<Pair, PkiError> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let make = |source| PkiError::Make { name: "a host", source };
        let names = CertificateParams::new(hosts).map_err(make)?.subject_alt_names;
        let signer = signer(Path::new(""), &self.authority, today)?;
        let mut params = server_params(&names, today);
        params.distinguished_name.push(DnType::CommonName, "coracle");
        sign("a host", params, &signer)
    }
}

fn read(dir: &Path, name: &str) -> Result<Option<Pair>, PkiError> {
    let text = |extension: &str| {
        let path = dir.join(format!("{name}.{extension}"));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::Io { action: "read", path, source }),
        }
    };
    let (certificate, key) = (text("crt")?, text("key")?);
    let Some((certificate, key)) = certificate.zip(key) else { return Ok(None) };
    let pair = Pair { certificate, key };
    let malformed = |extension, expected| PkiError::Malformed {
        path: dir.join(format!("{name}.{extension}")),
        expected,
    };
    if pair.not_after().is_none() {
        return Err(malformed("crt", "certificate"));
    }
    if pair.key_der().is_none() {
        return Err(malformed("key", "private key"));
    }
    Ok(Some(pair))
}

/// Writes the key first: a certificate without its key would be of no use, and a key without
/// certificate is replaced at the next start.
fn write(dir: &Path, name: &str, pair: &Pair) -> Result<(), PkiError> {
    for (extension, text) in [("key", &pair.key), ("crt", &pair.certificate)] {
        let path = dir.join(format!("{name}.{extension}"));
        write_private(&path, text).map_err(|source| PkiError::Io {
            action: "write",
            path,
            source,
        })?;
    }
    Ok(())
}

/// Replaces a file that only its owner may read, all or nothing.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn params(name: &str, today: Date, years: i32) -> CertificateParams {
    let day = |date: Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    let mut params = CertificateParams::default();
    params.not_before = day(today.saturating_sub(BACKDATED_DAYS.days()));
    params.not_after = day(today.saturating_add(years.years()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority_params(today: Date) -> CertificateParams {
    let mut params = params("kubernetes", today, AUTHORITY_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = false;
    params
}

fn server_params(names: &[SanType], today: Date) -> CertificateParams {
    let mut params = params("kube-apiserver", today, LEAF_YEARS);
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn admin_params(today: Date) -> CertificateParams {
    let mut params = params("kubernetes-admin", today, LEAF_YEARS);
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn authority(today: Date) -> Result<Pair, PkiError> {
    let make = |source| PkiError::Make { name: "ca", source };
    let key = KeyPair::generate().map_err(make)?;
    let certificate = authority_params(today).self_signed(&key).map_err(make)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Signs as the authority. Only its name and key go into what it signs, so that its certificate
/// need not be read back.
fn signer(dir: &Path, authority: &Pair, today: Date) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let key = KeyPair::from_pem(&authority.key).map_err(|_| PkiError::Malformed {
        path: dir.join("ca.key"),
        expected: "P-256 private key",
    })?;
    Ok(Issuer::new(authority_params(today), key))
}

fn sign(
    name: &'static str,
    params: CertificateParams,
    signer: &Issuer<'static, KeyPair>,
) -> Result<Pair, PkiError> {
    let make = |source| PkiError::Make { name, source };
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.signed_by(&key, signer).map_err(make)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(dir: &Path, now: &str) -> Pki {
        Pki::open(dir, &[], now.parse().unwrap()).unwrap()
    }

    #[test]
    fn made_once_private_and_renewed_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki");
        let first = open(&dir, "2026-01-01T00:00:00Z");
        let again = open(&dir, "2026-06-01T00:00:00Z");
        assert_eq!(first.admin.certificate, again.admin.certificate);
        for file in ["ca.key", "ca.crt", "apiserver.key", "admin.key"] {
            let mode = fs::metadata(dir.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let later = open(&dir, "2027-09-01T00:00:00Z");
        assert_eq!(first.authority.certificate, later.authority.certificate);
        assert_ne!(first.admin.certificate, later.admin.certificate);
        let much_later = open(&dir, "2035-10-01T00:00:00Z");
        assert_ne!(later.authority.certificate, much_later.authority.certificate);
        assert_ne!(later.server.certificate, much_later.server.certificate);
    }

    #[test]
    fn rubbish_is_named() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "2026-01-01T00:00:00Z");
        let path = dir.path().join("admin.crt");
        fs::write(&path, "no certificate").unwrap();
        let error = Pki::open(dir.path(), &[], Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` holds no certificate", path.display()));
    }
}
