//! A real registry behind a token server whose tokens live shortly, over a line on which everything takes longer than that.

use super::credentials::{PASSWORD, USER, auth_file, image, says_no_secret};
use super::support::{SlowLine, TokenRules, TokenServer, TokenUser, push_sample_with};
use super::*;

/// How many seconds a token is good.
const LIFE: i64 = 2;

/// The layer takes three times as long on the line.
const LAYER_SIZE: usize = 900_000;
const PER_SECOND: usize = 150_000;

/// After how many bytes of answers a connection breaks: later than a token ends, so that what follows needs another.
const BREAKS_AFTER: usize = 450_000;

/// Two registries of one token server, the first of which holds an image.
struct World {
    machine: Machine,
    tokens: TokenServer,
    source: DockerRegistry,
    target: DockerRegistry,
    image: SampleImage,
}

impl World {
    /// `None` when the test is to be skipped.
    async fn start() -> Option<Self> {
        let tokens = TokenServer::start(TokenRules::of(TokenUser::new(USER, PASSWORD))).await?;
        let source = DockerRegistry::start_logged(&tokens.section()).await?;
        let target = DockerRegistry::start_logged(&tokens.section()).await?;
        let image = image(LAYER_SIZE);
        let bearer = tokens.bearer("team/app");
        push_sample_with(Some(&bearer), &source.url(), "team/app", Some("1"), &image).await;
        let machine = Machine::new();
        machine.json(&["key", "generate", "--out", "keys/exporter"]).await;
        Some(World { machine, tokens, source, target, image })
    }

    fn log_in(&mut self, hosts: &[&str]) {
        self.machine.write("auth.json", &auth_file(hosts, PASSWORD));
        self.machine.set("REGISTRY_AUTH_FILE", self.machine.path("auth.json"));
    }

    fn write_spec(&self, host: &str) {
        let images = [(format!("{host}/team/app"), "tags: {exact: [\"1\"]}")];
        self.machine.write("spec.yaml", &spec("tokens", "linux/amd64", &images));
    }

    /// How many tokens were given for a repository that ends so.
    fn given(&self, repository: &str) -> usize {
        let of_it = |scope: &String| scope.rsplit_once(':').is_some_and(|(name, _)| name.ends_with(repository));
        self.tokens.asked().iter().filter(|asked| asked.given && asked.scopes.iter().any(of_it)).count()
    }
}

/// The whole way; the token server says of its tokens that they live `told` seconds.
async fn last_for_a_whole_pull_and_replay(told: Option<i64>) {
    let Some(mut world) = World::start().await else { return };
    let from = SlowLine::start(world.source.host(), PER_SECOND, BREAKS_AFTER).await;
    let to = SlowLine::start(world.target.host(), PER_SECOND, usize::MAX).await;
    world.log_in(&[&from.host(), &to.host()]);
    world.write_spec(&from.host());
    world.tokens.change(|rules| (rules.life, rules.told_life) = (LIFE, told));
    says_no_secret(&world.machine.ok(&["pull", "spec.yaml", "--store", "store", "-vvv"]).await);
    assert!(world.given("team/app") >= 3, "{:?}", world.tokens.asked());
    let layers: Vec<Digest> =
        children_for(&world.image, "amd64").iter().flat_map(|child| blobs_of(&world.image, child)).collect();
    let asked = blobs_asked(&world.source.accesses(), "GET");
    assert!(layers.iter().any(|layer| asked.iter().filter(|asked| *asked == layer).count() > 1), "{asked:?}");

    let bundle = export(&world.machine, "tokens", VOLUME_SIZE).await;
    world.tokens.forget();
    let to = format!("{}/mirror", to.host());
    let replay = ["replay", &bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state", "-vvv"];
    says_no_secret(&world.machine.ok(&replay).await);
    assert!(world.given("team/app") >= 2, "{:?}", world.tokens.asked());
    let accesses = world.target.accesses();
    let puts = |part: &str| {
        let done = accesses.iter().filter(|access| access.method == "PUT" && access.status == 201);
        done.filter(|access| access.path.contains(part)).count()
    };
    assert!(layers.iter().all(|layer| puts(&layer.hex()) == 1), "{accesses:?}");
    assert_eq!(puts("/manifests/1"), 1, "{accesses:?}");
    if told.is_some() {
        // The registries said so themselves, more often than at the first request.
        for registry in [&world.source, &world.target] {
            let refused = registry.accesses().into_iter().filter(|access| access.status == 401).count();
            assert!(refused > 1, "{:?}", registry.accesses());
        }
    }
}

#[tokio::test]
async fn tokens_of_two_seconds_last_for_a_whole_pull_and_replay() {
    last_for_a_whole_pull_and_replay(None).await;
}

#[tokio::test]
async fn tokens_that_end_before_they_say_last_for_a_whole_pull_and_replay() {
    last_for_a_whole_pull_and_replay(Some(300)).await;
}

#[tokio::test]
async fn each_form_of_asking_leads_to_a_token() {
    let Some(mut world) = World::start().await else { return };
    let host = world.source.host().to_owned();
    world.write_spec(&host);
    // What the token server knows, what the file holds, and how the token was had in the end.
    let auth = auth_file(&[&host], PASSWORD);
    let identity = format!(r#"{{"auths": {{"{host}": {{"identitytoken": "{PASSWORD}"}}}}}}"#);
    let named = format!(r#"{{"auths": {{"{host}": {{"username": "{USER}", "identitytoken": "{PASSWORD}"}}}}}}"#);
    let bearer = world.tokens.bearer("team/app");
    let whole = format!(r#"{{"auths": {{"{host}": {{"registrytoken": "{}"}}}}}}"#, &bearer["Bearer ".len()..]);
    let rows = [
        (true, true, &auth, Some("GET basic")),
        (false, true, &auth, Some("POST password")),
        (true, true, &identity, Some("POST refresh_token")),
        (true, false, &named, Some("GET basic")),
        (false, false, &whole, None),
    ];
    for (at, (get, post, file, expected)) in rows.into_iter().enumerate() {
        world.tokens.change(|rules| (rules.knows_get, rules.knows_post) = (get, post));
        world.tokens.forget();
        world.machine.write("auth.json", file);
        world.machine.set("REGISTRY_AUTH_FILE", world.machine.path("auth.json"));
        says_no_secret(&world.machine.ok(&["pull", "spec.yaml", "--store", &format!("store-{at}"), "-vvv"]).await);
        let given: Vec<String> = world
            .tokens
            .asked()
            .iter()
            .filter(|asked| asked.given)
            .map(|asked| format!("{} {}", asked.method, asked.grant))
            .collect();
        assert_eq!(given.first().map(String::as_str), expected, "{at}: {:?}", world.tokens.asked());
    }
}

#[tokio::test]
async fn fewer_rights_end_with_the_registrys_own_word() {
    let Some(mut world) = World::start().await else { return };
    let (source, target) = (world.source.host().to_owned(), world.target.host().to_owned());
    world.log_in(&[&source, &target]);
    world.write_spec(&source);
    world.machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
    let bundle = export(&world.machine, "tokens", VOLUME_SIZE).await;
    // May read, and is not told that this is all.
    world.tokens.change(|rules| rules.users[0].actions = vec!["pull".to_owned()]);
    world.tokens.forget();
    let to = format!("{target}/mirror");
    let replay = ["replay", &bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state"];
    let ran = world.machine.run_to(4, &replay).await;
    assert!(ran.out.contains("401") && ran.out.contains("its rights on mirror/"), "{}", ran.out);
    let posts = world.target.accesses().into_iter().filter(|access| access.method == "POST").count();
    let tokens = world.tokens.asked().len();
    assert!(tokens <= 2 * posts + 2, "{tokens} tokens for {posts} uploads: {:?}", world.tokens.asked());
}
