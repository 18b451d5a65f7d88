//! How a stand-in starts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use anyhow::{Context, bail};
use tokio::net::TcpListener;

use super::faults::Faults;
use super::store::Tables;
use super::{
    Budget, Exports, Fault, Key, Limits, PAGE_CLAMP, Project, Replay, Retention, Sandbox, Server, Shared, exports,
    server,
};

/// How a [`Sandbox`] starts.
#[derive(Debug, Default)]
pub struct Builder {
    projects: Vec<Project>,
    keys: Vec<Key>,
    limits: Limits,
    faults: Vec<Fault>,
    page_clamp: Option<usize>,
    list_page_cap: Option<usize>,
    uncapped_events: bool,
    exports: Option<Exports>,
    server: Server,
    retention: Retention,
    replay: Option<Replay>,
    port: u16,
}

impl Builder {
    /// Adds a project. Without any, there is [`Project::default`].
    #[must_use]
    pub fn project(mut self, project: Project) -> Self {
        self.projects.push(project);
        self
    }

    /// Adds a personal API key. Without any, there is [`Key::default`].
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Limits what PostHog limits. By default nothing is limited.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits the bytes that the queries of each project may read.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.limits.budget = Some(budget);
        self
    }

    /// Lets answers go wrong.
    #[must_use]
    pub fn faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }

    /// Returns at most so many rows per query, silently, instead of [`PAGE_CLAMP`].
    #[must_use]
    pub fn page_clamp(mut self, rows: usize) -> Self {
        self.page_clamp = Some(rows);
        self
    }

    /// Returns at most so many objects per page of a list, silently; the link to the next page goes on
    /// after what was returned.
    #[must_use]
    pub fn list_page_cap(mut self, objects: usize) -> Self {
        self.list_page_cap = Some(objects);
        self
    }

    /// Lets the deprecated list of events return as many as are asked for, with links that lose nothing.
    #[must_use]
    pub fn uncapped_events(mut self, uncapped: bool) -> Self {
        self.uncapped_events = uncapped;
        self
    }

    /// Offers file download exports. By default they are missing, with 404.
    #[must_use]
    pub fn exports(mut self, exports: Exports) -> Self {
        self.exports = Some(exports);
        self
    }

    /// Stands for this instance of PostHog instead of [`Server::default`]. Whether it offers exports is up
    /// to [`Builder::exports`].
    #[must_use]
    pub fn server(mut self, server: Server) -> Self {
        self.server = server;
        self
    }

    /// Hides old events of all projects, or tells that it will.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Serves recorded responses where they match, whatever key is sent.
    #[must_use]
    pub fn replay(mut self, replay: Option<Replay>) -> Self {
        self.replay = replay;
        self
    }

    /// Listens on this port instead of a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts to listen.
    pub async fn start(mut self) -> anyhow::Result<Sandbox> {
        if self.projects.is_empty() {
            self.projects.push(Project::default());
        }
        if self.keys.is_empty() {
            self.keys.push(Key::default());
        }
        let mut projects = Vec::new();
        let mut tables = HashMap::new();
        for project in self.projects {
            let zone = project.timezone.parse().with_context(|| format!("time zone of project {}", project.id))?;
            let rewrites = self.server.merges_rewrite_events;
            let mut empty = Tables::default();
            (empty.retention, empty.merges_rewrite_events) = (self.retention, rewrites);
            if tables.insert(project.id, empty).is_some() {
                bail!("two projects have the id {}", project.id);
            }
            projects.push((project, zone));
        }
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.context("bind a port of 127.0.0.1")?;
        let address = listener.local_addr()?;
        let files_listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a port for files")?;
        let files_address = files_listener.local_addr()?;
        let shared = Arc::new(Shared {
            projects,
            keys: self.keys,
            page_clamp: self.page_clamp.unwrap_or(PAGE_CLAMP),
            list_page_cap: self.list_page_cap,
            uncapped_events: self.uncapped_events,
            tables: RwLock::new(tables),
            server: Mutex::new(Arc::new(self.server)),
            limits: Mutex::new(self.limits),
            meter: Mutex::default(),
            faults: Mutex::new(Faults::new(self.faults)?),
            log: Mutex::default(),
            cache: Mutex::default(),
            arrivals: Mutex::default(),
            exports: Mutex::new(exports::State::new(self.exports, address, files_address)),
            replay: self.replay,
        });
        let servers = [
            tokio::spawn(server::serve(listener, Arc::clone(&shared))),
            tokio::spawn(exports::serve(files_listener, Arc::clone(&shared))),
        ];
        Ok(Sandbox { shared, address, files_address, servers })
    }
}
