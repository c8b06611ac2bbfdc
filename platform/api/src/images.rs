//! Images that disks are made of.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use ::images::{Format, Image, ImageError, Name, Source};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use model::Disk;
use registry::RegistryError;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{Receiver, channel};
use utoipa::{IntoParams, ToSchema};

use crate::access::blocking;
use crate::extract::{Params, Path};
use crate::list::{ListParams, Page};
use crate::{Problem, Shared};

/// Parts of a body that wait for the medium.
const WAITING_MAX: usize = 16;
/// What is read of a file at once.
const CHUNK: usize = 1 << 20;

/// An image of this host.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ImageView {
    /// What it is called.
    name: String,
    /// What it is: a digest of its bytes.
    id: String,
    /// Bytes of the disk.
    size_bytes: u64,
    /// Bytes it takes on the host.
    used_bytes: u64,
    /// When it came.
    #[schema(format = DateTime)]
    created: String,
    /// From where.
    source: String,
}

impl From<Image> for ImageView {
    fn from(image: Image) -> Self {
        Self {
            name: image.name.to_string(),
            id: image.id.to_string(),
            size_bytes: image.size_bytes,
            used_bytes: image.used_bytes,
            created: image.created.to_string(),
            source: image.source,
        }
    }
}

/// An image that is sent.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImageParams {
    /// What it is to be called.
    name: String,
    /// Its format, instead of what its bytes say: raw, qcow2, vmdk, vhdx or ova.
    format: Option<String>,
    /// It comes in the place of one of that name.
    #[serde(default)]
    replace: bool,
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        use ImageError as E;
        let (status, code) = match &error {
            E::Missing(_) => (StatusCode::NOT_FOUND, "not-found"),
            E::Exists(_) => (StatusCode::CONFLICT, "name-taken"),
            E::InUse(_) => (StatusCode::CONFLICT, "image-in-use"),
            E::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no-space"),
            E::NoConverter { .. } => (StatusCode::NOT_IMPLEMENTED, "no-converter"),
            E::Name(_)
            | E::Size { .. }
            | E::Format { .. }
            | E::Depends { .. }
            | E::Unfit { .. }
            | E::Converter { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-image"),
            E::NoHome | E::Record { .. } | E::Damaged { .. } | E::Host { .. } => {
                return Self::internal(&error);
            }
        };
        Self::new(status, code, errchain::Chain(&error).to_string())
    }
}

/// The image of this name.
pub(crate) fn find(images: &::images::Store, name: &str) -> Result<Image, Problem> {
    let missing = || ImageError::Missing(name.to_owned());
    Ok(images.find(&name.parse::<Name>().map_err(|_| missing())?)?)
}

/// The images there are, by name
#[utoipa::path(get, path = "/v1/images", tag = "images", params(ListParams), responses(
    (status = 200, description = "A page of them", body = Page<ImageView>),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ImageView>>, Problem> {
    blocking(move || {
        // They are files: pages are of what there is when they are asked for.
        let (_, revision) = state.registry.store().get("").map_err(RegistryError::from)?;
        let all = state.images.list()?.into_iter();
        // Those on their way to a disk are nobody else's.
        let all = all.filter(|image| !image.name.as_ref().starts_with(host::UPLOAD));
        params.page(all.map(ImageView::from).collect(), revision).map(Json)
    })
    .await
}

/// An image
#[utoipa::path(get, path = "/v1/images/{image}", tag = "images", params(
    ("image" = String, Path, description = "Its name"),
), responses(
    (status = 200, description = "It", body = ImageView),
))]
pub(crate) async fn get(
    State(state): Shared,
    Path(name): Path<String>,
) -> Result<Json<ImageView>, Problem> {
    blocking(move || Ok(Json(find(&state.images, &name)?.into()))).await
}

/// Bring an image in
///
/// It is answered when all of it has come and been converted. One that is cut off leaves nothing.
#[utoipa::path(post, path = "/v1/images", tag = "images", params(ImageParams),
request_body(content = String, description = "The disk: raw, qcow2, VMDK, VHDX or OVA", content_type = "application/octet-stream"), responses(
    (status = 201, description = "It is there", body = ImageView),
))]
pub(crate) async fn upload(
    State(state): Shared,
    Params(ImageParams { name, format, replace }): Params<ImageParams>,
    body: Body,
) -> Result<(StatusCode, Json<ImageView>), Problem> {
    if name.starts_with(host::UPLOAD) {
        let detail = format!("names that begin with '{}' are the daemon's own", host::UPLOAD);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-image", detail));
    }
    let image = receive(&state, body, &name, format.as_deref(), replace).await?;
    Ok((StatusCode::CREATED, Json(image.into())))
}

/// Delete an image of which no disk is made
#[utoipa::path(delete, path = "/v1/images/{image}", tag = "images", params(
    ("image" = String, Path, description = "Its name"),
), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    blocking(move || {
        let image = find(&state.images, &name)?;
        let id = image.id.to_string();
        let (disks, _) = state.registry.all::<Disk>(None)?;
        let is_of_it = |disk: &&std::sync::Arc<Disk>| {
            disk.spec.source.as_ref().is_some_and(|of| of.image().id == id)
        };
        if let Some(disk) = disks.iter().find(is_of_it) {
            let disk = &disk.meta.name;
            let detail = format!("disk '{disk}' is made of image '{name}': delete that first");
            return Err(Problem::new(StatusCode::CONFLICT, "image-in-use", detail));
        }
        state.images.remove(&image.name)?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// The bytes of an image's disk
#[utoipa::path(get, path = "/v1/images/{image}/content", tag = "images", params(
    ("image" = String, Path, description = "Its name"),
), responses(
    (status = 200, description = "A raw disk", content_type = "application/octet-stream", body = String),
))]
pub(crate) async fn download(
    State(state): Shared,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (file, size) = blocking(move || {
        let image = find(&state.images, &name)?;
        let file = File::open(&image.path).map_err(|error| Problem::internal(&error))?;
        Ok((file, image.size_bytes))
    })
    .await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    let parts = stream::unfold(Some(file), |file| async {
        let mut file = file?;
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; CHUNK];
            let count = file.read(&mut buffer)?;
            buffer.truncate(count);
            io::Result::Ok((Bytes::from(buffer), file))
        });
        match read.await.map_err(io::Error::other).and_then(|read| read) {
            Ok((bytes, _)) if bytes.is_empty() => None,
            Ok((bytes, file)) => Some((Ok(bytes), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// A body as it comes, for who waits for it.
struct Incoming {
    parts: Receiver<Option<Bytes>>,
    rest: Bytes,
    is_whole: bool,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.is_whole {
            match self.parts.blocking_recv() {
                Some(Some(part)) => self.rest = part,
                Some(None) => self.is_whole = true,
                // Whoever sends has gone: what has come is not the disk.
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = into.len().min(self.rest.len());
        into[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Takes a disk in as an image.
pub(crate) async fn receive(
    state: &Arc<crate::State>,
    body: Body,
    name: &str,
    format: Option<&str>,
    replace: bool,
) -> Result<Image, Problem> {
    let invalid =
        |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-image", detail);
    let name: Name = name.parse()?;
    let format: Option<Format> =
        format.map(str::parse).transpose().map_err(|error| invalid(format!("format: {error}")))?;
    let (send, parts) = channel(WAITING_MAX);
    let images = state.images.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut incoming = Incoming { parts, rest: Bytes::new(), is_whole: false };
        let source = Source::Stream(&mut incoming);
        ::images::import(&images, source, &name, format, replace, &mut |_, _| ())
    });
    let mut stream = body.into_data_stream();
    loop {
        let part = match stream.next().await {
            Some(Ok(part)) => Some(part),
            Some(Err(_)) => break,
            None => None,
        };
        let is_end = part.is_none();
        // Who takes it may have found it unfit already.
        if send.send(part).await.is_err() || is_end {
            break;
        }
    }
    drop(send);
    let done = work.await.map_err(|error| Problem::internal(&error))?;
    Ok(done?)
}
