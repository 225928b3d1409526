//! Downloads public data sets from their own homes, checks them and stores them gzipped.
//!
//! A set arrives as one zip archive, or is taken from a copy that the user already has. Only the
//! files that the presets read are extracted, into memory; each has to have the known sha256, and
//! nothing is written before all of them have. Files are written beside their final name and then
//! renamed, so that no file is ever there in part.
//!
//! ```no_run
//! use crossfield_data::fetch::{DataSet, FetchOptions, fetch};
//!
//! let fetched = fetch(DataSet::Ml100k, &FetchOptions::into_folder("data"))?;
//! println!("{fetched}");
//! # Ok::<(), crossfield_data::fetch::FetchError>(())
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

/// Largest archive that is downloaded, in bytes; the sets here are below a tenth of it.
const LARGEST_ARCHIVE: u64 = 64 << 20;

/// A public data set that can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    /// MovieLens-100k: 100,000 ratings of 1,682 films by 943 people (GroupLens).
    Ml100k,
    /// Adult census income: 48,842 people, income above or below 50,000 dollars (UCI).
    Adult,
}

impl DataSet {
    /// Every set.
    pub const ALL: [Self; 2] = [Self::Ml100k, Self::Adult];

    /// Name on the command line, and of the folder that holds the files.
    pub fn name(self) -> &'static str {
        self.manifest().name
    }

    /// Where its terms of use are, and the gist of them.
    pub fn terms(self) -> &'static str {
        self.manifest().terms
    }

    fn manifest(self) -> &'static Manifest<'static> {
        match self {
            Self::Ml100k => &ML_100K,
            Self::Adult => &ADULT,
        }
    }
}

impl FromStr for DataSet {
    type Err = FetchError;

    fn from_str(name: &str) -> Result<Self, FetchError> {
        Self::ALL
            .into_iter()
            .find(|set| set.name() == name)
            .ok_or_else(|| FetchError::UnknownSet {
                name: name.to_owned(),
            })
    }
}

/// Where a data set comes from and goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// A copy that is already there: the zip archive, or a folder that holds the files, plain or
    /// gzipped, itself or in a folder named after the set. `None`: download.
    pub from: Option<PathBuf>,
    /// Folder that gets a folder named after the set.
    pub out: PathBuf,
    /// Takes the place of everything before the archive's name in its address, for a mirror.
    pub base_url: Option<String>,
    /// No progress bar; without a terminal there is none either.
    pub quiet: bool,
}

impl FetchOptions {
    /// A download from the set's own home into a folder of `out`.
    pub fn into_folder(out: impl Into<PathBuf>) -> Self {
        Self {
            from: None,
            out: out.into(),
            base_url: None,
            quiet: false,
        }
    }
}

/// What was fetched; displayed, it says where the files are and what their terms of use are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Name of the set.
    pub name: &'static str,
    /// The gzipped files.
    pub files: Vec<PathBuf>,
    /// Where the terms of use are, and the gist of them.
    pub terms: &'static str,
}

impl fmt::Display for Fetched {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{}: {} files, checksums as expected",
            self.name,
            self.files.len()
        )?;
        for file in &self.files {
            writeln!(out, "  {}", file.display())?;
        }
        write!(out, "Terms of use: {}", self.terms)
    }
}

/// Why a data set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No set of that name.
    #[error("data set {name:?} is not known, expected ml-100k or adult")]
    UnknownSet {
        /// The name.
        name: String,
    },
    /// The server answered, but not with the archive.
    #[error("{url}: HTTP status {status}, expected 200")]
    Status {
        /// Address.
        url: String,
        /// The status.
        status: u16,
    },
    /// No answer from the server.
    #[error("{url}: {source}; a copy that was downloaded otherwise can be given with --from PATH")]
    Connect {
        /// Address.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The archive did not arrive whole.
    #[error("{url}: the download broke off after {got} bytes{}: {reason}", of(*.expected))]
    Broken {
        /// Address.
        url: String,
        /// Bytes that arrived.
        got: u64,
        /// Bytes that the server announced.
        expected: Option<u64>,
        /// What went wrong.
        reason: String,
    },
    /// The archive is far larger than any set.
    #[error("{url}: more than {limit} bytes, expected an archive of at most so many")]
    TooLarge {
        /// Address.
        url: String,
        /// Most bytes taken.
        limit: u64,
    },
    /// Not a zip archive, or a damaged one.
    #[error("{archive}: not a readable zip archive: {reason}")]
    NotZip {
        /// Address or path.
        archive: String,
        /// What went wrong.
        reason: String,
    },
    /// A file of the set is not there.
    #[error("{place}: no file {file}, expected all of {expected}")]
    Missing {
        /// Address or path.
        place: String,
        /// The file.
        file: String,
        /// The files of the set.
        expected: String,
    },
    /// A file is not the one that is known.
    #[error(
        "{place}: {file} has sha256 {got} ({got_bytes} bytes), \
         expected {expected} ({expected_bytes} bytes)"
    )]
    Checksum {
        /// Address or path.
        place: String,
        /// The file.
        file: String,
        /// Its sha256, uncompressed, in hexadecimal.
        got: String,
        /// Its bytes, uncompressed; reading stops soon after those expected.
        got_bytes: usize,
        /// The known sha256.
        expected: String,
        /// The known size.
        expected_bytes: usize,
    },
    /// A given copy could not be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Read {
        /// Path.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{}: cannot be written: {source}", .path.display())]
    Write {
        /// Path.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

fn of(expected: Option<u64>) -> String {
    expected
        .map(|bytes| format!(" of {bytes}"))
        .unwrap_or_default()
}

/// What is known of a data set.
struct Manifest<'a> {
    name: &'static str,
    home: &'static str,
    archive: &'static str,
    terms: &'static str,
    members: &'a [Member<'a>],
}

/// A file of a data set.
struct Member<'a> {
    name: &'a str,
    bytes: usize,
    sha256: &'a str,
    /// A first line that starts like this is taken off; size and checksum are of the rest.
    drop_line: Option<&'a str>,
}

const ML_100K: Manifest<'static> = Manifest {
    name: "ml-100k",
    home: "https://files.grouplens.org/datasets/movielens",
    archive: "ml-100k.zip",
    terms: "https://files.grouplens.org/datasets/movielens/ml-100k-README.txt (research use, \
            acknowledged in publications; no redistribution and no commercial use without \
            permission)",
    members: &[
        Member {
            name: "u.data",
            bytes: 1_979_173,
            sha256: "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            drop_line: None,
        },
        Member {
            name: "u.item",
            bytes: 236_344,
            sha256: "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
            drop_line: None,
        },
        Member {
            name: "u.user",
            bytes: 22_628,
            sha256: "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
            drop_line: None,
        },
        Member {
            name: "u.genre",
            bytes: 202,
            sha256: "9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb",
            drop_line: None,
        },
    ],
};

const ADULT: Manifest<'static> = Manifest {
    name: "adult",
    home: "https://archive.ics.uci.edu/static/public/2",
    archive: "adult.zip",
    terms: "https://archive.ics.uci.edu/dataset/2/adult (CC BY 4.0; cite Becker & Kohavi 1996, \
            doi 10.24432/C5XW20)",
    members: &[
        Member {
            name: "adult.data",
            bytes: 3_974_305,
            sha256: "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            drop_line: None,
        },
        Member {
            name: "adult.test",
            bytes: 2_003_132,
            sha256: "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074",
            drop_line: Some("|1x3 Cross validator"),
        },
    ],
};

/// Fetches a data set: `out/<set>/<file>.gz` for each of its files.
///
/// # Errors
/// No connection; an HTTP status other than success; a download that broke off; not a zip
/// archive; a file that is missing or not the known one; a disk that cannot be read or written.
/// No file of the set is written then, unless it is the writing itself that failed; files are
/// never there in part.
pub fn fetch(set: DataSet, options: &FetchOptions) -> Result<Fetched, FetchError> {
    fetch_manifest(set.manifest(), options)
}

fn fetch_manifest(set: &Manifest<'_>, options: &FetchOptions) -> Result<Fetched, FetchError> {
    let contents = match &options.from {
        Some(path) if path.is_dir() => from_folder(set, path)?,
        Some(path) => {
            let file = File::open(path).map_err(|source| FetchError::Read {
                path: path.clone(),
                source,
            })?;
            from_zip(set, io::BufReader::new(file), &path.display().to_string())?
        }
        None => {
            let home = options
                .base_url
                .as_deref()
                .unwrap_or(set.home)
                .trim_end_matches('/');
            let url = format!("{home}/{}", set.archive);
            let archive = download(&url, options.quiet)?;
            from_zip(set, Cursor::new(archive), &url)?
        }
    };
    let folder = options.out.join(set.name);
    fs::create_dir_all(&folder).map_err(|source| FetchError::Write {
        path: folder.clone(),
        source,
    })?;
    let mut files = Vec::new();
    for (member, content) in set.members.iter().zip(&contents) {
        let path = folder.join(format!("{}.gz", member.name));
        write_gzipped(&path, content).map_err(|source| FetchError::Write {
            path: path.clone(),
            source,
        })?;
        files.push(path);
    }
    Ok(Fetched {
        name: set.name,
        files,
        terms: set.terms,
    })
}

fn download(url: &str, quiet: bool) -> Result<Vec<u8>, FetchError> {
    let mut config = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)));
    if ["http://127.0.0.1", "http://localhost"]
        .iter()
        .any(|host| url.starts_with(host))
    {
        // A proxy would look for the server on its own machine.
        config = config.proxy(None);
    }
    let agent = ureq::Agent::new_with_config(config.build());
    let mut response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(status) => FetchError::Status {
            url: url.to_owned(),
            status,
        },
        source => FetchError::Connect {
            url: url.to_owned(),
            source: Box::new(source),
        },
    })?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(FetchError::Status {
            url: url.to_owned(),
            status,
        });
    }
    let expected = response.body().content_length();
    let too_large = || FetchError::TooLarge {
        url: url.to_owned(),
        limit: LARGEST_ARCHIVE,
    };
    if expected.is_some_and(|bytes| bytes > LARGEST_ARCHIVE) {
        return Err(too_large());
    }

    // Drawn on stderr, and not at all where that is not a terminal.
    let bar = match expected {
        Some(bytes) => ProgressBar::new(bytes),
        None => ProgressBar::no_length(),
    };
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
    bar.set_message(url.rsplit('/').next().unwrap_or(url).to_owned());

    let mut archive = Vec::new();
    let body = response.body_mut().as_reader().take(LARGEST_ARCHIVE + 1);
    let outcome = bar.wrap_read(body).read_to_end(&mut archive);
    bar.finish_and_clear();
    let got = archive.len() as u64;
    let broken = |reason: String| FetchError::Broken {
        url: url.to_owned(),
        got,
        expected,
        reason,
    };
    outcome.map_err(|error| broken(error.to_string()))?;
    if got > LARGEST_ARCHIVE {
        return Err(too_large());
    }
    if expected.is_some_and(|bytes| bytes != got) {
        return Err(broken("the connection was closed".to_owned()));
    }
    Ok(archive)
}

fn missing(set: &Manifest<'_>, member: &Member<'_>, place: &str) -> FetchError {
    let names: Vec<&str> = set.members.iter().map(|member| member.name).collect();
    FetchError::Missing {
        place: place.to_owned(),
        file: member.name.to_owned(),
        expected: names.join(", "),
    }
}

fn from_zip(
    set: &Manifest<'_>,
    archive: impl Read + io::Seek,
    place: &str,
) -> Result<Vec<Vec<u8>>, FetchError> {
    let not_zip = |reason: ZipError| FetchError::NotZip {
        archive: place.to_owned(),
        reason: reason.to_string(),
    };
    let mut zip = ZipArchive::new(archive).map_err(not_zip)?;
    let entries: Vec<String> = zip.file_names().map(str::to_owned).collect();
    set.members
        .iter()
        .map(|member| {
            // Entries are found by the last part of their name and never written by it.
            let entry = entries
                .iter()
                .find(|entry| entry.rsplit(['/', '\\']).next() == Some(member.name))
                .ok_or_else(|| missing(set, member, place))?;
            let reader = zip.by_name(entry).map_err(not_zip)?;
            let content = read_member(member, reader).map_err(|source| FetchError::NotZip {
                archive: place.to_owned(),
                reason: format!("{entry}: {source}"),
            })?;
            checked(member, content, place)
        })
        .collect()
}

fn from_folder(set: &Manifest<'_>, folder: &Path) -> Result<Vec<Vec<u8>>, FetchError> {
    set.members
        .iter()
        .map(|member| {
            let path = [folder.to_owned(), folder.join(set.name)]
                .iter()
                .flat_map(|folder| {
                    [
                        folder.join(member.name),
                        folder.join(format!("{}.gz", member.name)),
                    ]
                })
                .find(|path| path.is_file())
                .ok_or_else(|| missing(set, member, &folder.display().to_string()))?;
            let read = |path: &Path| {
                let file = File::open(path)?;
                if path.extension().is_some_and(|extension| extension == "gz") {
                    read_member(member, MultiGzDecoder::new(io::BufReader::new(file)))
                } else {
                    read_member(member, file)
                }
            };
            let content = read(&path).map_err(|source| FetchError::Read {
                path: path.clone(),
                source,
            })?;
            checked(member, content, &path.display().to_string())
        })
        .collect()
}

/// Reads a file and takes off the line that does not count, but reads not much more than the
/// known size, whatever a damaged or hostile archive unpacks to.
fn read_member(member: &Member<'_>, reader: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    reader
        .take(member.bytes as u64 + 1024)
        .read_to_end(&mut content)?;
    if member
        .drop_line
        .is_some_and(|line| content.starts_with(line.as_bytes()))
    {
        let end = content
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(content.len(), |at| at + 1);
        content.drain(..end);
    }
    Ok(content)
}

fn checked(member: &Member<'_>, content: Vec<u8>, place: &str) -> Result<Vec<u8>, FetchError> {
    let got = hexadecimal(&content);
    if got == member.sha256 {
        return Ok(content);
    }
    Err(FetchError::Checksum {
        place: place.to_owned(),
        file: member.name.to_owned(),
        got,
        got_bytes: content.len(),
        expected: member.sha256.to_owned(),
        expected_bytes: member.bytes,
    })
}

/// The sha256 of some bytes in hexadecimal.
fn hexadecimal(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes beside `path` and renames; on an error nothing is left.
fn write_gzipped(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("gz.part");
    let write = || {
        let mut gzip = GzEncoder::new(File::create(&part)?, Compression::default());
        gzip.write_all(content)?;
        gzip.finish()?.sync_all()?;
        fs::rename(&part, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to report; there may be no file to remove.
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::thread::JoinHandle;
    use tempfile::TempDir;
    use zip::write::SimpleFileOptions;

    const RATINGS: &[u8] = b"1\t2\t3\n4\t5\t6\n";
    const TEST: &[u8] = b"39, ?, <=50K.\n\n";

    /// A set of two small files.
    fn with_small_set<T>(run: impl FnOnce(&Manifest<'_>) -> T) -> T {
        let (ratings, test) = (hexadecimal(RATINGS), hexadecimal(TEST));
        run(&Manifest {
            name: "small",
            home: "http://127.0.0.1:9",
            archive: "small.zip",
            terms: "none",
            members: &[
                Member {
                    name: "u.data",
                    bytes: RATINGS.len(),
                    sha256: &ratings,
                    drop_line: None,
                },
                Member {
                    name: "a.test",
                    bytes: TEST.len(),
                    sha256: &test,
                    drop_line: Some("|1x3"),
                },
            ],
        })
    }

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn whole_zip() -> Vec<u8> {
        let test = [b"|1x3 Cross validator\n", TEST].concat();
        zipped(&[
            ("small/README", b"x"),
            ("small/u.data", RATINGS),
            ("small/a.test", &test),
        ])
    }

    /// Answers one request with these bytes; gives the base address and, once done, the request.
    fn serve(response: Vec<u8>) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/mirror/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut lines = io::BufReader::new(stream.try_clone().unwrap());
            while !request.ends_with("\r\n\r\n") {
                lines.read_line(&mut request).unwrap();
            }
            stream.write_all(&response).unwrap();
            request
        });
        (base, server)
    }

    fn ok(body: &[u8], announced: usize) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    fn get(base: String, out: &TempDir) -> Result<Fetched, FetchError> {
        let options = FetchOptions {
            base_url: Some(base),
            quiet: true,
            ..FetchOptions::into_folder(out.path())
        };
        with_small_set(|set| fetch_manifest(set, &options))
    }

    fn take(from: &Path, out: &TempDir) -> Result<Fetched, FetchError> {
        let options = FetchOptions {
            from: Some(from.to_owned()),
            ..FetchOptions::into_folder(out.path())
        };
        with_small_set(|set| fetch_manifest(set, &options))
    }

    fn unpacked(path: &Path) -> Vec<u8> {
        let mut content = Vec::new();
        MultiGzDecoder::new(File::open(path).unwrap())
            .read_to_end(&mut content)
            .unwrap();
        content
    }

    fn assert_complete(fetched: &Fetched, out: &TempDir) {
        let folder = out.path().join("small");
        assert_eq!(
            fetched.files,
            [folder.join("u.data.gz"), folder.join("a.test.gz")]
        );
        assert_eq!(unpacked(&fetched.files[0]), RATINGS);
        assert_eq!(unpacked(&fetched.files[1]), TEST);
        assert_eq!(
            fs::read_dir(folder).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    fn assert_nothing_written(out: &TempDir) {
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_download_ends_as_gzipped_files() {
        let (zip, out) = (whole_zip(), TempDir::new().unwrap());
        let (base, server) = serve(ok(&zip, zip.len()));
        let fetched = get(base, &out).unwrap();
        assert_complete(&fetched, &out);
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("GET /mirror/small.zip HTTP/1.1\r\n")
        );
        assert!(fetched.to_string().ends_with("Terms of use: none"));
    }

    #[test]
    fn a_status_is_reported() {
        let out = TempDir::new().unwrap();
        let response = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        let (base, server) = serve(response);
        let error = get(base.clone(), &out).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{base}small.zip: HTTP status 404, expected 200")
        );
        assert_nothing_written(&out);
        server.join().unwrap();
    }

    #[test]
    fn a_refused_connection_is_reported_with_the_way_around() {
        let out = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = get(base.clone(), &out).unwrap_err();
        assert!(matches!(error, FetchError::Connect { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.starts_with(&base) && message.contains("--from PATH"),
            "{message}"
        );
        assert_nothing_written(&out);
    }

    #[test]
    fn a_body_that_breaks_off_is_reported_by_its_bytes() {
        let (zip, out) = (whole_zip(), TempDir::new().unwrap());
        let (base, server) = serve(ok(&zip[..100], zip.len()));
        let error = get(base, &out).unwrap_err();
        let expected = format!("broke off after 100 bytes of {}", zip.len());
        assert!(error.to_string().contains(&expected), "{error}");
        assert_nothing_written(&out);
        server.join().unwrap();
    }

    #[test]
    fn another_file_is_refused_by_both_checksums() {
        let out = TempDir::new().unwrap();
        let zip = zipped(&[("u.data", b"tampered"), ("a.test", TEST)]);
        let (base, server) = serve(ok(&zip, zip.len()));
        let message = get(base, &out).unwrap_err().to_string();
        for part in [
            "u.data",
            "(8 bytes)",
            &hexadecimal(b"tampered"),
            &hexadecimal(RATINGS),
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_nothing_written(&out);
        server.join().unwrap();
    }

    #[test]
    fn an_archive_that_unpacks_without_end_is_not_read_to_it() {
        let (out, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = from.path().join("bomb.zip");
        fs::write(
            &path,
            zipped(&[("u.data", &vec![0; 1 << 20]), ("a.test", TEST)]),
        )
        .unwrap();
        match take(&path, &out).unwrap_err() {
            FetchError::Checksum { got_bytes, .. } => assert_eq!(got_bytes, RATINGS.len() + 1024),
            error => panic!("{error:?}"),
        }
        assert_nothing_written(&out);
    }

    #[test]
    fn a_zip_at_hand_will_do() {
        let (out, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = from.path().join("copy.zip");
        fs::write(&path, whole_zip()).unwrap();
        assert_complete(&take(&path, &out).unwrap(), &out);
    }

    #[test]
    fn a_folder_at_hand_will_do_plain_or_gzipped() {
        let (out, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(from.path().join("u.data"), RATINGS).unwrap();
        fs::create_dir(from.path().join("small")).unwrap();
        write_gzipped(&from.path().join("small/a.test.gz"), TEST).unwrap();
        assert_complete(&take(from.path(), &out).unwrap(), &out);
    }

    #[test]
    fn what_is_missing_is_named() {
        let (out, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(from.path().join("u.data"), RATINGS).unwrap();
        let message = take(from.path(), &out).unwrap_err().to_string();
        assert!(
            message.ends_with("no file a.test, expected all of u.data, a.test"),
            "{message}"
        );
        let path = from.path().join("half.zip");
        fs::write(&path, zipped(&[("u.data", RATINGS)])).unwrap();
        assert!(matches!(take(&path, &out), Err(FetchError::Missing { .. })));
        let absent = take(&from.path().join("absent.zip"), &out).unwrap_err();
        assert!(matches!(absent, FetchError::Read { .. }), "{absent:?}");
        assert_nothing_written(&out);
    }

    #[test]
    fn what_is_not_a_zip_or_damaged_is_refused() {
        let (out, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = from.path().join("page.zip");
        fs::write(&path, b"<html>sign in first</html>").unwrap();
        let error = take(&path, &out).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("page.zip: not a readable zip archive"),
            "{error}"
        );
        let cut = from.path().join("a.test.gz");
        write_gzipped(&cut, TEST).unwrap();
        fs::write(&cut, &fs::read(&cut).unwrap()[..20]).unwrap();
        fs::write(from.path().join("u.data"), RATINGS).unwrap();
        let error = take(from.path(), &out).unwrap_err();
        assert!(
            matches!(&error, FetchError::Read { path, .. } if *path == cut),
            "{error:?}"
        );
        assert_nothing_written(&out);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let (out, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = from.path().join("copy.zip");
        fs::write(&path, whole_zip()).unwrap();
        fs::write(out.path().join("small"), b"a file in the way").unwrap();
        let error = take(&path, &out).unwrap_err();
        assert!(
            error.to_string().contains("small: cannot be written"),
            "{error}"
        );
        // A folder where the file has to go: what was written beside it is removed again.
        let out = TempDir::new().unwrap();
        fs::create_dir_all(out.path().join("small/u.data.gz/x")).unwrap();
        assert!(matches!(take(&path, &out), Err(FetchError::Write { .. })));
        assert_eq!(fs::read_dir(out.path().join("small")).unwrap().count(), 1);
    }

    #[test]
    fn sets_are_known_by_name() {
        assert_eq!("adult".parse::<DataSet>().unwrap(), DataSet::Adult);
        let error = "ml-1m".parse::<DataSet>().unwrap_err();
        assert!(
            error.to_string().contains("expected ml-100k or adult"),
            "{error}"
        );
    }

    #[test]
    fn the_manifests_fit_the_real_files() {
        let Some(data) = std::env::var_os("CROSSFIELD_DATA").map(PathBuf::from) else {
            println!("skipped: CROSSFIELD_DATA is not set");
            return;
        };
        for set in DataSet::ALL {
            if !data.join(set.name()).is_dir() {
                println!("skipped: no {} in {}", set.name(), data.display());
                continue;
            }
            let out = TempDir::new().unwrap();
            let options = FetchOptions {
                from: Some(data.clone()),
                ..FetchOptions::into_folder(out.path())
            };
            let fetched = fetch(set, &options).unwrap();
            for (path, member) in fetched.files.iter().zip(set.manifest().members) {
                let content = unpacked(path);
                assert_eq!(content.len(), member.bytes, "{}", member.name);
                assert_eq!(hexadecimal(&content), member.sha256);
            }
        }
    }
}
