//! Disks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Disk, DiskSource, DiskSpec, ImageRef, Labels, Name, Operation, default_pool};
use registry::{Kept, New, RootDisk};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path};
use crate::images::{find, receive};
use crate::list::{ListParams, Page};
use crate::objects::{self, ForceParams, OfProject, ProjectParams, Visible, Which};
use crate::{Problem, Shared};

/// A disk that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDisk {
    /// What it is to be called.
    name: Name,
    /// Its size in bytes; without it, its image's.
    #[serde(default)]
    size_bytes: Option<u64>,
    /// The image it is made of; without one it is empty.
    #[serde(default)]
    image: Option<String>,
    /// Where it is to be.
    #[serde(default = "default_pool")]
    #[schema(default = "default")]
    pool: Name,
    /// What its owner notes down.
    #[serde(default)]
    labels: Labels,
}

/// A disk that is sent.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadParams {
    /// What it is to be called.
    #[param(value_type = String)]
    name: Name,
    /// Its format, instead of what its bytes say: raw, qcow2, vmdk, vhdx or ova.
    format: Option<String>,
    /// Its size in bytes, if it is to be larger.
    size_bytes: Option<u64>,
    /// Where it is to be.
    #[serde(default = "default_pool")]
    #[param(default = "default", value_type = Option<String>)]
    pool: Name,
}

/// A disk that is being made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct DiskCreated {
    /// It.
    disk: Disk,
    /// What reports on it.
    operation: Operation,
}

/// A disk's new size.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resize {
    /// In bytes: no less than it has.
    size_bytes: u64,
}

/// To what a disk is attached.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachTo {
    /// The VM: its name or ID.
    vm: String,
}

/// Of an image that there is, a disk of this size or its own.
///
/// # Errors
/// When there is no such image, or it is larger.
pub fn of_image(
    images: &::images::Store,
    image: &str,
    size_bytes: Option<u64>,
) -> Result<RootDisk, Problem> {
    let image = find(images, image)?;
    let size_bytes = fitting(size_bytes, image.size_bytes)?;
    let source = ImageRef { name: image.name.to_string(), id: image.id.to_string() };
    Ok(RootDisk { source: DiskSource::Image(source), size_bytes })
}

fn fitting(size_bytes: Option<u64>, least: u64) -> Result<u64, Problem> {
    match size_bytes {
        Some(size) if size < least => {
            let detail = format!("the disk is smaller than its image: give {least} bytes or more");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-spec", detail))
        }
        size => Ok(size.unwrap_or(least)),
    }
}

fn spec(source: Option<DiskSource>, size_bytes: u64, pool: Name, labels: Labels) -> DiskSpec {
    DiskSpec { size_bytes, source, pool, delete_with_vm: false, vm: None, revert: None, labels }
}

/// The disks there are
#[utoipa::path(get, path = "/v1/disks", tag = "disks", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of disks, the oldest first", body = Page<Disk>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Disk>>, Problem> {
    objects::list(state, of, params).await
}

/// Make a disk: empty, or of an image
#[utoipa::path(post, path = "/v1/disks", tag = "disks", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewDisk, responses(
    (status = 202, description = "It is being made", body = DiskCreated),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(body): Body<NewDisk>,
) -> Result<impl IntoResponse, Problem> {
    let create = move |state: &crate::State| {
        let (source, size_bytes) = match (&body.image, body.size_bytes) {
            (Some(image), size) => {
                let RootDisk { source, size_bytes } = of_image(&state.images, image, size)?;
                (Some(source), size_bytes)
            }
            (None, Some(size_bytes)) => (None, size_bytes),
            (None, None) => {
                let detail = "give size_bytes, or an image";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-spec", detail));
            }
        };
        let spec = spec(source, size_bytes, body.pool, body.labels);
        let new = New { name: body.name, project: of.project, spec };
        Ok(state.registry.create_disk(new, &asking.asked)?)
    };
    objects::create(state, create, |disk, operation| DiskCreated { disk, operation }).await
}

/// Make a disk of one that is sent
#[utoipa::path(post, path = "/v1/disk-uploads", tag = "disks", params(ProjectParams, UploadParams),
request_body(content = String, description = "The disk: raw, qcow2, VMDK, VHDX or OVA", content_type = "application/octet-stream"), responses(
    (status = 202, description = "It has come, and is being made", body = DiskCreated),
))]
pub(crate) async fn upload(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Params(params): Params<UploadParams>,
    asking: Asking,
    body: axum::body::Body,
) -> Result<impl IntoResponse, Problem> {
    {
        // Before it is sent, rather than after.
        let (state, of, name) = (state.clone(), of.clone(), params.name.clone());
        blocking(move || match state.registry.get::<Disk>(&of.project, name.as_ref()) {
            Ok(_) => Err(registry::RegistryError::Exists { kind: "disk", name }.into()),
            Err(registry::RegistryError::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        })
        .await?;
    }
    let waiting = format!("{}{}", host::UPLOAD, Uuid::now_v7());
    let image = receive(&state, body, &waiting, params.format.as_deref(), false).await?;
    let create = move |state: &crate::State| {
        let made = || -> Result<(Kept<Disk>, Operation), Problem> {
            let size_bytes = fitting(params.size_bytes, image.size_bytes)?;
            let source = ImageRef { name: waiting, id: image.id.to_string() };
            let source = Some(DiskSource::Upload(source));
            let spec = spec(source, size_bytes, params.pool, Labels::new());
            let new = New { name: params.name, project: of.project, spec };
            Ok(state.registry.create_disk(new, &asking.asked)?)
        };
        made().inspect_err(|_| {
            // Nobody can mean it any more.
            let _ = state.images.remove(&image.name);
        })
    };
    objects::create(state, create, |disk, operation| DiskCreated { disk, operation }).await
}

/// A disk
#[utoipa::path(get, path = "/v1/disks/{disk}", tag = "disks", params(
    ProjectParams, ("disk" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It; its ETag is its spec's", body = Disk),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(disk): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<Disk>(state, of, disk).await
}

/// Change a disk's spec, by a merge patch
#[utoipa::path(patch, path = "/v1/disks/{disk}", tag = "disks", params(
    ProjectParams, ("disk" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"delete_with_vm\": false}}`"), responses(
    (status = 200, description = "The disk with the new spec", body = Disk),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(disk): Path<String>,
    IfMatch(revision): IfMatch,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    objects::patch::<Disk>(state, Which { of, name: disk, revision }, patch, |_| Ok(())).await
}

/// Delete a disk; with `force` also its snapshots. One that is attached is detached first
#[utoipa::path(delete, path = "/v1/disks/{disk}", tag = "disks", params(
    ProjectParams, ForceParams, ("disk" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is going away", body = Operation),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Params(how): Params<ForceParams>,
    Path(disk): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        let (registry, asked) = (&state.registry, &asking.asked);
        Ok(registry.delete_disk(&of.project, &disk, how.force, revision, asked)?)
    })
    .await
}

/// Make a disk larger, also while a VM runs with it
#[utoipa::path(post, path = "/v1/disks/{disk}/resize", tag = "disks", params(
    ProjectParams, ("disk" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body = Resize, responses(
    (status = 202, description = "It is growing", body = Operation),
))]
pub(crate) async fn resize(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(disk): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
    Body(Resize { size_bytes }): Body<Resize>,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        let (registry, asked) = (&state.registry, &asking.asked);
        Ok(registry.resize_disk(&of.project, &disk, size_bytes, revision, asked)?)
    })
    .await
}

/// Attach a disk to a VM, also while that runs
#[utoipa::path(post, path = "/v1/disks/{disk}/attach", tag = "disks", params(
    ProjectParams, ("disk" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body = AttachTo, responses(
    (status = 202, description = "It is coming", body = Operation),
))]
pub(crate) async fn attach(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(disk): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
    Body(AttachTo { vm }): Body<AttachTo>,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        let (registry, asked) = (&state.registry, &asking.asked);
        Ok(registry.attach_disk(&of.project, &disk, &vm, revision, asked)?)
    })
    .await
}

/// Detach a disk from its VM; the guest of one that runs is asked to let it go
#[utoipa::path(post, path = "/v1/disks/{disk}/detach", tag = "disks", params(
    ProjectParams, ("disk" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is going", body = Operation),
))]
pub(crate) async fn detach(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(disk): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        Ok(state.registry.detach_disk(&of.project, &disk, revision, &asking.asked)?)
    })
    .await
}
