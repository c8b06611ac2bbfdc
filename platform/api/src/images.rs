//! Images that VMs' disks are made of.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::{Problem, Shared};

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

/// The images there are, by name
#[utoipa::path(get, path = "/v1/images", tag = "images", responses(
    (status = 200, description = "All of them", body = Vec<ImageView>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list(State(state): Shared) -> Result<Json<Vec<ImageView>>, Problem> {
    blocking(move || {
        let all = state.images.list().map_err(|error| Problem::internal(&error))?;
        let view = |image: images::Image| ImageView {
            name: image.name.to_string(),
            id: image.id.to_string(),
            size_bytes: image.size_bytes,
            used_bytes: image.used_bytes,
            created: image.created.to_string(),
            source: image.source,
        };
        Ok(Json(all.into_iter().map(view).collect()))
    })
    .await
}
