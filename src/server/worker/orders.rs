//! What the main thread orders: another site with its sockets and logs, the end of work, the end.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;

use crate::http::site::{Site, SiteHandle};
use crate::server::client::{ClientKey, Fate};
use crate::server::listeners::WorkerListener;
use crate::server::logs::OpenLogs;
use crate::server::relay::multiplexed;
use crate::server::runtime::WorkerCommand;

use super::accept::{self, Listener};
use super::{Worker, addresses, epoll_of};

impl Worker {
    pub(super) fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                WorkerCommand::Configure { site, listeners, logs } => self.configure(site, listeners, logs),
                WorkerCommand::ReopenLogs { logs } => {
                    self.logs = logs;
                    self.adopt_logs();
                }
                WorkerCommand::Quit { deadline } => self.begin_quit(deadline),
                WorkerCommand::Terminate => self.terminated = true,
            }
        }
    }

    /// Serves from a new site and accepts from these sockets.
    pub(super) fn configure(&mut self, site: Arc<Site>, listeners: Vec<WorkerListener>, logs: Arc<OpenLogs>) {
        self.shortage = accept::Shortage::of_process();
        let site = SiteHandle::new(site);
        let former = std::mem::replace(&mut self.res.site, site.clone());
        self.res.set_tls_clock();
        self.former_sites.push(former.watch());
        drop(former);
        self.res.forget_recycled();
        self.logs = logs;
        self.adopt_logs();
        if let Some(upstream_names) = &mut self.upstream_names {
            upstream_names.configure(&self.res.site.upstreams, &mut self.res.names);
        }
        self.res.names.forget_unused();
        self.res.forget_idle();
        if let Some(probes) = &mut self.probes {
            probes.configure(&site, &mut self.res);
        }
        let mut kept = vec![false; listeners.len()];
        for number in 0..self.res.listeners.len() {
            let Some(Some(listener)) = self.res.listeners.get(number) else { continue };
            let position = listener
                .socket
                .as_ref()
                .and_then(|socket| listeners.iter().position(|new| Arc::ptr_eq(&new.socket, socket)));
            match position {
                Some(position) => kept[position] = true,
                None => self.abandon_listener(number),
            }
            let Some(Some(listener)) = self.res.listeners.get_mut(number) else { continue };
            // Also where only the connections are left: the address may have other sockets.
            if let Some(new) = listeners.iter().find(|new| new.plan.address == listener.plan.address) {
                listener.plan = Arc::clone(&new.plan);
                listener.proxy_protocol = speaks_proxy_protocol(&site, &new.plan);
                listener.most = addresses::most_connections(&site, &new.plan);
                listener.site = site.clone();
            }
        }
        for (new, _) in listeners.into_iter().zip(kept).filter(|(_, kept)| !kept) {
            let number = self.put_listener(Listener {
                proxy_protocol: speaks_proxy_protocol(&site, &new.plan),
                most: addresses::most_connections(&site, &new.plan),
                socket: Some(new.socket),
                plan: new.plan,
                site: site.clone(),
                clients: 0,
            });
            if self.resting_until_ms.is_none() {
                self.watch_listener(number);
            }
        }
    }

    /// Accepts what waits in a socket that is given up, and lets go of it; its connections go on.
    fn abandon_listener(&mut self, number: usize) {
        self.drain(number);
        let Some(slot) = self.res.listeners.get_mut(number) else { return };
        let Some(listener) = slot else { return };
        if let Some(socket) = listener.socket.take() {
            // The descriptor is shared with the other holders: closing ours would not deregister it.
            let _ = epoll::delete(epoll_of(&self.poll), socket.as_fd());
        }
        if listener.clients == 0 {
            *slot = None;
        }
    }

    /// Finishes what is under way and accepts nothing more.
    fn begin_quit(&mut self, deadline: Option<Instant>) {
        self.quit_deadline = deadline;
        for number in 0..self.res.listeners.len() {
            self.abandon_listener(number);
        }
        self.shared.leave(&self.peer);
        let handed = self.peer.close_inbox();
        self.take_handed(handed);
        self.res.quitting = true;
        self.quit_multiplexed();
        multiplexed::retire_all(&mut self.res);
        self.close_idle();
    }

    /// Tells clients of HTTP/2 to make their next requests elsewhere.
    fn quit_multiplexed(&mut self) {
        for (_, client) in &mut self.clients {
            client.quit_multiplexed(&mut self.res);
        }
    }

    /// Closes connections between requests. One that has not made its first request yet is given the time that its head
    /// may take: the client has no reason to expect the end.
    fn close_idle(&mut self) {
        let now_ms = self.res.env.now.monotonic_ms;
        let idle: Vec<ClientKey> = self
            .clients
            .iter()
            .filter(|(_, client)| client.may_give_way(now_ms))
            .map(|(index, client)| ClientKey { index: index as u32, generation: client.generation })
            .collect();
        for key in idle {
            // A request may have come that the poll has not reported yet: it is served, as the last one.
            self.turn(key, |client, key, res| {
                client.flags.unread = true;
                match client.read_on(key, res) {
                    Fate::Keep if client.is_idle() => Fate::Close,
                    fate => fate,
                }
            });
        }
    }

    pub(super) fn is_over(&mut self) -> bool {
        if self.terminated {
            return true;
        }
        if !self.res.quitting {
            return false;
        }
        self.close_idle();
        self.clients.is_empty() || self.quit_deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    pub(super) fn shut_down(&mut self) {
        self.shared.leave(&self.peer);
        let keys: Vec<ClientKey> = self
            .clients
            .iter()
            .map(|(index, client)| ClientKey { index: index as u32, generation: client.generation })
            .collect();
        for key in keys {
            self.close(key);
        }
        self.write_logs();
        self.with_log_time(|sinks, time| {
            sinks.flush_all(time);
        });
    }
}

/// Whether connections to this address begin with a line of the PROXY protocol.
pub(super) fn speaks_proxy_protocol(site: &Site, plan: &crate::conf::listen::SocketPlan) -> bool {
    site.listens.addresses().get(plan.address_of(None)).is_some_and(|shared| shared.protocol.proxy_protocol)
}
