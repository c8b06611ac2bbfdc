//! The files that were built.

/// A file of the UI.
#[derive(Debug)]
pub(crate) struct File {
    /// Where it is served.
    pub path: &'static str,
    /// What is in it.
    pub plain: &'static [u8],
    /// The same, packed.
    pub brotli: Option<&'static [u8]>,
    /// The same, packed otherwise.
    pub gzip: Option<&'static [u8]>,
}

/// All of them, by path; none when the UI was not built before.
static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The page that all pages begin as.
pub(crate) const SHELL: &str = "/index.html";

/// What there is to see without the UI.
static MISSING: File =
    File { path: SHELL, plain: include_bytes!("missing.html"), brotli: None, gzip: None };

impl File {
    /// Its media type.
    pub fn kind(&self) -> &'static str {
        match self.path.rsplit_once('.').map_or("", |(_, kind)| kind) {
            "html" => "text/html; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "txt" => "text/plain; charset=utf-8",
            "woff2" => "font/woff2",
            _ => "application/octet-stream",
        }
    }

    /// What those that keep it are told. Those in this folder have a digest in their names.
    pub fn keeping(&self) -> &'static str {
        match self.path.starts_with("/assets/") {
            true => "public, max-age=31536000, immutable",
            false => "no-cache",
        }
    }
}

/// The file that is served there.
pub(crate) fn find(path: &str) -> Option<&'static File> {
    let at = FILES.binary_search_by_key(&path, |file| file.path).ok()?;
    FILES.get(at)
}

/// The page that all pages begin as, or one that says that there is none.
pub(crate) fn shell() -> &'static File {
    find(SHELL).unwrap_or(&MISSING)
}

#[cfg(test)]
pub(crate) fn all() -> &'static [File] {
    FILES
}
