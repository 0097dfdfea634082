//! Volumes: what a client sees, and which core owns which part of it.
//!
//! The [`composer`] turns a client's request into a part for the owner of its
//! segment; [`placement`] says who that is; the [`catalog`] is the durable list
//! of volumes.

pub mod catalog;
#[cfg(test)]
mod catalog_tests;
pub mod composer;
pub mod placement;
pub mod trim;

use std::sync::Arc;

use crate::request::VolumeView;
use crate::units::{FragmentSize, VolumeId};

/// A volume as every core knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Name, size and presented blocks.
    pub view: VolumeView,
    /// Identity for life.
    pub uuid: [u8; 16],
    /// Size of fragments made from now on.
    pub fragment: FragmentSize,
}

/// The volumes, sorted by name; replaced as a whole when one changes.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    list: Arc<Vec<Volume>>,
    views: Arc<Vec<VolumeView>>,
}

impl Volumes {
    /// From any order.
    pub fn new(mut list: Vec<Volume>) -> Self {
        list.sort_by(|a, b| a.view.name.cmp(&b.view.name));
        let views = list.iter().map(|volume| volume.view.clone()).collect();
        Self { list: Arc::new(list), views: Arc::new(views) }
    }

    /// The volume with that number.
    pub fn get(&self, id: VolumeId) -> Option<&Volume> {
        self.list.iter().find(|volume| volume.view.id == id)
    }

    /// The volume with that name.
    pub fn by_name(&self, name: &str) -> Option<&Volume> {
        self.list.iter().find(|volume| volume.view.name == name)
    }

    /// All volumes, by name.
    pub fn list(&self) -> &[Volume] {
        &self.list
    }

    /// What targets see of them.
    pub fn views(&self) -> &[VolumeView] {
        &self.views
    }
}
