//! Wiring: builds all parts, hands each its handles, names the background tasks, owns the order of shutdown.
//!
//! The one room that sees the whole house. Nothing is decided here but who gets what.

mod cores;
mod probe;
mod signals;
mod sweeps;
mod ways;

use crate::admin::{Admin, AdminParts, Door, Health, LiveBus, instance_name};
use crate::base::bell::Bell;
use crate::base::ids::RequestIds;
use crate::base::tasks::{self, DrainSwitch, Phase, Tasks};
use crate::base::telemetry::{self, LogFormat};
use crate::base::{Clock, seal};
use crate::cli::Stop;
use crate::cluster::{self, Hello, Identity};
use crate::config::Settings;
use crate::proxy::{self, AccessLines, Shared, Similar, Traces};
use crate::server::{self, Permits, Tls};
use crate::state::budgets::Budgets;
use crate::state::bus::Bus;
use crate::state::catalog::Directory;
use crate::state::dedup::{Dedup, Fingerprints};
use crate::state::delta::Delta;
use crate::state::desk::Desk;
use crate::state::lead::Lead;
use crate::state::ledger::Till;
use crate::state::limiter::Limiter;
use crate::state::logins::{Logins, Sayings};
use crate::state::outbox::Outbox;
use crate::state::peers::Peers;
use crate::state::reach::Reach;
use crate::state::throttle::Throttle;
use crate::state::unknown_keys::UnknownKeys;
use crate::state::usage::Usage as UsageBook;
use crate::store::refresh::{Refresher, Sources};
use crate::store::writer::Writer;
use crate::store::{Store, StoreConfig, retention, spending};
use crate::upstream::{self, ClientConfig};
use cores::CoreParts;
use signals::Signals;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use ways::WaysOut;

/// Connections a core keeps idle per host at most: more than a core can use at once in practice.
const MAX_IDLE_PER_HOST: usize = 1024;
/// After *cut*, streams get this long to send their last event.
const CUT_GRACE: Duration = Duration::from_secs(3);
/// How long a start may wait for the others' rests, where Redis answered a moment ago: many times what it takes, also to
/// find a cluster's nodes on a busy machine.
const REDIS_PATIENCE: Duration = Duration::from_secs(1);
/// The last round's time at the end.
const REDIS_GRACE: Duration = Duration::from_secs(2);
/// The usage writer's and the store's time at the end.
const STORE_GRACE: Duration = Duration::from_secs(10);
/// Usage that waits on disk while the store is away: several minutes at the highest rate of rows.
const SPILL_MAX_BYTES: u64 = 256 << 20;

/// A running gateway. Dropping it does not stop it; [`Gateway::stop`] does.
#[derive(Debug)]
pub struct Gateway {
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    orders: mpsc::UnboundedSender<Order>,
    control: std::thread::JoinHandle<()>,
    ended: watch::Receiver<bool>,
}

/// How to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Lame duck, then finish, then cut.
    Drain,
    /// Without the lame duck.
    DrainNow,
    /// Cut at once.
    Cut,
}

/// `merido start`: runs until a signal ends it.
pub fn run(settings: Settings) -> Result<(), String> {
    telemetry::init(&settings.log, settings.log_format.unwrap_or_else(LogFormat::by_terminal));
    let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
    let gateway = Gateway::start(settings)?;
    let dashboard = format!("{scheme}://{}/", gateway.addr);
    tracing::info!(address = %gateway.addr, dashboard, version = env!("CARGO_PKG_VERSION"), "serving");
    gateway.wait();
    Ok(())
}

/// Runs one command to its end.
pub fn command(work: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

impl Gateway {
    /// Starts one and returns once it serves. Blocks: call it from outside any runtime.
    pub fn start(settings: Settings) -> Result<Self, String> {
        let settings = Arc::new(settings);
        let (addr, listeners) = server::bind(SocketAddr::new(settings.host, settings.port), workers(&settings))
            .map_err(|e| format!("can't listen on {}:{}: {e}", settings.host, settings.port))?;
        let own = match settings.admin_listen {
            Some(at) => Some(server::bind(at, 1).map_err(|e| format!("can't listen on {at}: {e}"))?),
            None => None,
        };
        let admin_addr = own.as_ref().map(|(addr, _)| *addr);
        let own = own.and_then(|(_, mut listeners)| listeners.pop());
        let control = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let store = Store::open(&StoreConfig::from(&*settings)).map_err(|e| e.to_string())?;
        let directory = Arc::new(Directory::new());
        let sources = Sources::from(&*settings);
        let mut refresher =
            Refresher::new(store.clone(), Arc::clone(&directory), sources).map_err(|e| e.to_string())?;
        control.block_on(refresher.load()).map_err(|e| e.to_string())?;
        let mut parts = Parts::new(settings, directory, store)?;
        if let Some(url) = &parts.settings.redis_url {
            // Before anything of ours could get into another deployment's.
            parts.hello.met = control.block_on(cluster::meet(&parts.cluster_config(url), &parts.hello))?;
        }
        // Budgets must know what was spent before the first request: a restart is no refund.
        for (key, nanos) in control.block_on(parts.store.spent()).map_err(|e| e.to_string())? {
            parts.budgets.seed(key, nanos);
        }
        let (orders, inbox) = mpsc::unbounded_channel();
        let (ended_tx, ended) = watch::channel(false);
        let (ready_tx, ready) = std::sync::mpsc::channel();
        let control = tasks::thread("control".to_owned(), move || {
            control.block_on(parts.run(listeners, own, refresher, inbox, ready_tx));
            // Tasks that outlived every deadline end with their runtime.
            control.shutdown_timeout(Duration::from_secs(1));
            let _ = ended_tx.send(true);
        })
        .map_err(|e| e.to_string())?;
        ready.recv().map_err(|_| "the gateway ended while starting; its log has more".to_owned())??;
        Ok(Self { addr, admin_addr, orders, control, ended })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the control plane's own listener is, if it has one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Tells it to end; returns at once.
    pub fn order(&self, order: Order) {
        // A gateway that has ended already needs no orders.
        let _ = self.orders.send(order);
    }

    /// Waits for its end (a signal, or an order).
    pub fn wait(self) {
        if self.control.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Drains without a lame duck and waits.
    pub fn stop(self) {
        self.order(Order::DrainNow);
        self.wait();
    }
}

fn workers(settings: &Settings) -> usize {
    match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    }
}

/// Everything, before it runs.
struct Parts {
    settings: Arc<Settings>,
    directory: Arc<Directory>,
    store: Store,
    usage: Arc<UsageBook>,
    limiter: Arc<Limiter>,
    /// Where limits meet the cluster; `None`: this instance is alone.
    desk: Option<Arc<Desk>>,
    /// Where budgets do.
    till: Option<Arc<Till>>,
    /// Live instances as last counted; before the first count what was expected.
    instances: Arc<AtomicU32>,
    /// Wakes the Redis task.
    bell: Arc<Bell>,
    budgets: Arc<Budgets>,
    /// Fingerprints are keyed by the deployment, so that instances agree and nobody else can guess one.
    dedup_key: [u8; 32],
    throttle: Arc<Throttle>,
    dedup: Arc<Dedup>,
    unknown: Arc<UnknownKeys>,
    switch: DrainSwitch,
    permits: Arc<Permits>,
    /// Published into by whoever hears of other instances.
    peers: Arc<Peers>,
    serving: Arc<AtomicBool>,
    upstream: ClientConfig,
    tls: Option<Arc<Tls>>,
    /// Whether the others can be reached.
    reach: Arc<Reach>,
    epoch: u64,
    hello: Hello,
    retention: Arc<Lead>,
}

impl Parts {
    fn new(settings: Arc<Settings>, directory: Arc<Directory>, store: Store) -> Result<Self, String> {
        let tls = upstream::tls_config(settings.upstream_ca.as_deref())?;
        let own_tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Tls::load(certificate, key)?)),
            _ => None,
        };
        let timeouts = &settings.timeouts;
        let (connect, pool_idle) = (timeouts.connect, timeouts.upstream_idle);
        let epoch = seal::random_u64().map_err(|e| e.to_string())?;
        let bell = Arc::<Bell>::default();
        let reach = Arc::new(if settings.redis_url.is_some() { Reach::new() } else { Reach::off() });
        let instances = Arc::new(AtomicU32::new(settings.expected_instances.unwrap_or(1)));
        let (desk, till) = ways::shared_limits(&settings, &bell, &reach, &instances, epoch);
        let upstream = ClientConfig { connect, pool_idle, max_idle_per_host: MAX_IDLE_PER_HOST, tls };
        let identity = Identity { deployment: store.deployment(), data_key: store.data_key().fingerprint() };
        let lead = if settings.redis_url.is_some() { Lead::shared() } else { Lead::alone() };
        Ok(Self {
            hello: Hello { identity, epoch, started_ms: Clock::unix_ms(), met: false },
            retention: Arc::new(lead),
            usage: Arc::new(UsageBook::new(settings.log_rows_per_second)),
            limiter: Arc::new(desk.as_ref().map_or_else(Limiter::new, |desk| Limiter::shared(Arc::clone(desk)))),
            desk,
            bell,
            instances,
            budgets: Arc::new(till.as_ref().map_or_else(Budgets::new, |till| Budgets::shared(Arc::clone(till)))),
            till,
            dedup_key: store.data_key().sub_key("dedup fingerprints").map_err(|e| e.to_string())?,
            throttle: Arc::default(),
            dedup: Dedup::new(proxy::dedup_limits(&settings)),
            // Only its count of strikes is used: all keys are in memory, so no answer needs remembering.
            unknown: Arc::new(UnknownKeys::new(Duration::ZERO)),
            permits: Arc::new(Permits::new(settings.max_connections)),
            peers: Arc::default(),
            serving: Arc::default(),
            switch: DrainSwitch::new(),
            reach,
            epoch,
            settings,
            directory,
            store,
            upstream,
            tls: own_tls,
        })
    }

    async fn run(
        self,
        listeners: Vec<TcpListener>,
        admin_listener: Option<TcpListener>,
        refresher: Refresher,
        mut orders: mpsc::UnboundedReceiver<Order>,
        ready: std::sync::mpsc::Sender<Result<(), String>>,
    ) {
        // Before anybody hears that it serves: a signal that comes right then must find its handler.
        let mut signals = Signals::new();
        let here = tokio::runtime::Handle::current();
        let background_tasks = Tasks::default();
        let drain = self.switch.drain();
        background_tasks.spawn(&here, "refresh", refresher.run(drain.clone(), self.store.bell()));
        let (days, bytes) = (self.settings.log_retention_days, self.settings.log_max_bytes);
        background_tasks.spawn(
            &here,
            "retention",
            retention::run(self.store.clone(), days, bytes, Arc::clone(&self.retention), drain.clone()),
        );
        let spending = spending::run(self.store.clone(), Arc::clone(&self.budgets), drain.clone());
        background_tasks.spawn(&here, "spending", spending);
        if let Some(tls) = &self.tls {
            background_tasks.spawn(&here, "certificate", Arc::clone(tls).watch(drain.clone()));
        }
        // The writer must outlive the last request: it has a switch of its own.
        let writer_switch = DrainSwitch::new();
        let writer_tasks = Tasks::default();
        match Writer::new(self.store.clone(), Arc::clone(&self.usage)) {
            Ok(writer) => {
                let writer = writer.spilling(&self.settings.data_dir, SPILL_MAX_BYTES);
                writer_tasks.spawn(&here, "usage writer", writer.run(writer_switch.drain()));
            }
            Err(error) => {
                let _ = ready.send(Err(error.to_string()));
                return;
            }
        }
        let live = LiveBus::new(Bus::new(self.epoch, listeners.len()));
        let bell = Arc::clone(&self.bell);
        let (logins, said) = match self.settings.redis_url {
            Some(_) => Logins::open(Arc::clone(&bell)),
            None => (Logins::closed(), Sayings::none()),
        };
        // It must outlive the last request, too, and end before the writer does.
        let cluster_switch = DrainSwitch::new();
        let ways = self.ways_out(bell, said, &live.bus, &cluster_switch);
        let WaysOut { outbox, breakers, elsewhere, cluster } = match ways {
            Ok(ways) => ways,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let admin = match self.admin(live.clone(), logins, outbox.clone()) {
            Ok(admin) => Arc::new(admin),
            Err(error) => {
                let _ = ready.send(Err(error.to_string()));
                return;
            }
        };
        background_tasks.spawn(&here, "events", live.clone().collect(drain.clone()));
        background_tasks.spawn(&here, "sweeps", sweeps::run(self.swept(), drain.clone()));
        let format = self.settings.log_format.unwrap_or_else(LogFormat::by_terminal);
        let access = AccessLines::new(self.settings.access_log, format).map(Arc::new);
        if let Some(access) = &access {
            writer_tasks.spawn(&here, "access log", Arc::clone(access).run(writer_switch.drain()));
        }
        let traces = match Traces::new(&self.settings, instance_name(self.epoch), self.epoch) {
            Ok(traces) => traces.map(Arc::new),
            Err(why) => {
                let _ = ready.send(Err(format!("otlp_endpoint: {why}")));
                return;
            }
        };
        if let Some(traces) = &traces {
            let to = self.upstream.clone();
            writer_tasks.spawn(&here, "traces", Arc::clone(traces).run(to, writer_switch.drain()));
        }
        if let Some(listener) = admin_listener {
            let own = cores::OwnListener {
                admin: Arc::clone(&admin),
                timeouts: cores::timeouts(&self.settings),
                drain: drain.clone(),
                tls: self.tls.clone(),
            };
            background_tasks.spawn(&here, "control plane", own.run(listener));
        }
        let semantic = Similar::new(&self.settings);
        if let Some(similar) = &semantic {
            background_tasks.spawn(&here, "semantic sweep", Arc::clone(similar).sweep(drain.clone()));
        }
        let shared = Arc::new(Shared {
            settings: Arc::clone(&self.settings),
            directory: Arc::clone(&self.directory),
            usage: Arc::clone(&self.usage),
            limiter: Arc::clone(&self.limiter),
            budgets: Arc::clone(&self.budgets),
            dedup: Arc::clone(&self.dedup),
            elsewhere,
            semantic,
            fingerprints: Fingerprints::new(self.dedup_key),
            outbox,
            breakers,
            limits: proxy::default_limits(&self.settings),
            no_model: Arc::from("-"),
            access,
            traces,
            unknown: Arc::clone(&self.unknown),
            bus: live.bus,
            drain: drain.clone(),
        });
        if let Some(cluster) = cluster.as_ref().filter(|_| self.hello.met) {
            // No request before the others' rests are known, unless there is nobody to ask.
            cluster.known(REDIS_PATIENCE).await;
        }
        let count = listeners.len();
        let (done_tx, mut done) = mpsc::channel::<()>(count);
        let mut failed = None;
        for (index, listener) in listeners.into_iter().enumerate() {
            let core = CoreParts {
                shared: Arc::clone(&shared),
                admin: Arc::clone(&admin),
                control: here.clone(),
                ids: RequestIds::new(self.epoch, index, count),
                permits: Arc::clone(&self.permits),
                upstream: self.upstream.clone(),
                drain: drain.clone(),
                tls: self.tls.clone(),
            };
            let done = done_tx.clone();
            if let Err(error) = tasks::thread(format!("core-{index}"), move || {
                core.run(listener);
                drop(done);
            }) {
                failed = Some(error.to_string());
            }
        }
        drop(done_tx);
        self.serving.store(failed.is_none(), Ordering::Release);
        let _ = ready.send(failed.map_or(Ok(()), Err));
        self.shut_down(&mut signals, &mut orders, &mut done).await;
        // Every request has ended: whatever else waits for the last phase may go, too.
        self.switch.advance(Phase::Cut);
        cluster_switch.advance(Phase::Cut);
        if let Some(cluster) = cluster {
            let last_round = tasks::blocking("the end of the redis thread", move || cluster.wait());
            if tokio::time::timeout(REDIS_GRACE, last_round).await.is_err() {
                tracing::error!("the redis thread did not end in time; what it held lapses by itself");
            }
        }
        writer_switch.advance(Phase::Cut);
        for name in writer_tasks.wait(STORE_GRACE).await {
            tracing::error!(task = name, "did not end in time; its last batch is lost");
        }
        background_tasks.wait(STORE_GRACE).await;
        tracing::info!("ended");
    }

    fn admin(&self, live: LiveBus, logins: Logins, outbox: Outbox<Delta>) -> Result<Admin, crate::base::Error> {
        let health = Health {
            instance: instance_name(self.epoch),
            started: Clock::now(),
            reach: Arc::clone(&self.reach),
            directory: Arc::clone(&self.directory),
            drain: self.switch.drain(),
            serving: Arc::clone(&self.serving),
        };
        let probe = probe::Probe { directory: Arc::clone(&self.directory), upstream: self.upstream.clone() };
        Admin::new(AdminParts {
            settings: Arc::clone(&self.settings),
            store: self.store.clone(),
            door: Door::new(Arc::clone(&self.throttle), logins, self.settings.redis_deadline),
            budgets: Arc::clone(&self.budgets),
            outbox,
            peers: Arc::clone(&self.peers),
            test: Arc::new(probe),
            live,
            health,
        })
    }

    fn swept(&self) -> sweeps::Swept {
        sweeps::Swept {
            directory: Arc::clone(&self.directory),
            limiter: Arc::clone(&self.limiter),
            throttle: Arc::clone(&self.throttle),
            unknown: Arc::clone(&self.unknown),
            dedup: Arc::clone(&self.dedup),
        }
    }

    /// Waits for the order, then walks through the phases.
    async fn shut_down(
        &self,
        signals: &mut Signals,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        cores: &mut mpsc::Receiver<()>,
    ) {
        let order = tokio::select! {
            order = orders.recv() => order.unwrap_or(Order::DrainNow),
            order = signals.next() => order,
            _ = cores.recv() => { tracing::error!("every core ended by itself"); return; }
        };
        tracing::info!(?order, "shutting down");
        let lame = if order == Order::Drain { self.settings.lame_duck() } else { Duration::ZERO };
        let steps: &[(Phase, Duration)] = match order {
            Order::Cut => &[(Phase::Cut, CUT_GRACE)],
            _ => &[(Phase::LameDuck, lame), (Phase::Finish, self.settings.drain), (Phase::Cut, CUT_GRACE)],
        };
        let mut hurried = false;
        for (phase, patience) in steps {
            if hurried && *phase != Phase::Cut {
                continue;
            }
            self.switch.advance(*phase);
            tokio::select! {
                // All cores have let go of their sender: every connection has ended.
                _ = cores.recv() => return,
                () = tokio::time::sleep(*patience) => {}
                _ = signals.next() => { tracing::warn!("second signal: ending now"); hurried = true; }
                Some(_) = orders.recv() => { hurried = true; }
            }
        }
    }
}
