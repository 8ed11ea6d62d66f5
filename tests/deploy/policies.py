"""What must hold for the resolved templates and no linter knows. Each policy answers readable findings, none when it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from cryptopulse.common.config import SERVICES as FACTS
from cryptopulse.common.config import ServiceSettings, describe
from cryptopulse.common.telemetry.cloudwatch import FIGURES
from cryptopulse.gateway.adapters.target_watch import POLL_SECONDS
from cryptopulse.gateway.bootstrap import WITHDRAWAL_SECONDS
from tests.deploy.cfn import ROOT, SERVICES, Template
from tests.deploy.cloudwatch import looked_at, queue_names
from tools.local_stack.config import settings_of

Stage = Mapping[str, Template]

DRAIN_SECONDS: Final = {"ingestor": 32, "indicators": 39, "alerts": 43, "portfolio": 27, "gateway": 36}
"""What the drain steps of each service add up to: `drain_budget_seconds` of its start-up log line."""
SOCKET_PING_SECONDS: Final = 20
KEEP_ALIVE_SECONDS: Final = 130
SECRET_NAME: Final = re.compile(
    r"PASSWORD|SECRET|TOKEN|API_KEY|PRIVATE|_DSN|(RABBITMQ|REDIS|DATABASE)_URL", re.IGNORECASE
)
CREDENTIALS: Final = re.compile(r"://[^/@\s]*:[^/@\s]*@")
RELEASED: Final = re.compile(r"(:v?\d+\.\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})$")
HEALTH_NUMBERS: Final = {
    "Interval": (5, 300),
    "Timeout": (2, 60),
    "Retries": (1, 10),
    "StartPeriod": (0, 300),
}
WITHOUT_RESOURCE: Final = (
    "ecr:GetAuthorizationToken",
    "ssmmessages:",
    "elasticloadbalancing:DescribeTargetHealth",
)
"""Actions that can be allowed on everything only."""
ALTERNATE: Final = frozenset({"AlternateTargetGroupArn", "ProductionListenerRule", "RoleArn"})
"""What a balancer must be given for a deployment that is not a rolling one."""
TLS_POLICY: Final = re.compile(r"^ELBSecurityPolicy-TLS13-1-[23]-")


def tasks(stage: Stage) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Stack, task definition and container of every container."""
    for stack, template in stage.items():
        for task in template.of_type("AWS::ECS::TaskDefinition").values():
            for container in task["ContainerDefinitions"]:
                yield stack, task, container


def roles_are_named(stage: Stage) -> Iterator[str]:
    for stack, task, container in tasks(stage):
        needs = bool(container.get("Secrets")) or container["LogConfiguration"]["LogDriver"] == "awslogs"
        if needs and not task.get("ExecutionRoleArn"):
            yield f"{stack}: no execution role, but secrets or logs"
        if not task.get("TaskRoleArn"):
            yield f"{stack}: no task role"
    for stack, template in stage.items():
        for name, role in template.of_type("AWS::IAM::Role").items():
            for statement in _statements(role):
                actions = _listed(statement["Action"])
                wide = "*" in _listed(statement["Resource"])
                if wide and not all(a.startswith(WITHOUT_RESOURCE) for a in actions):
                    yield f"{stack}: role {name} may {actions} on everything"


def stops_in_time(stage: Stage) -> Iterator[str]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    for stack, _, container in tasks(stage):
        stop = container.get("StopTimeout", 30)
        if stop > 120:
            yield f"{stack}: StopTimeout {stop} is above Fargate's 120"
        name = container["Name"]
        delay = float(environment(container).get(f"CRYPTOPULSE_{name.upper()}_DRAIN_DELAY_SECONDS", 0))
        if stop < DRAIN_SECONDS[name] + delay + 5:
            yield f"{stack}: StopTimeout {stop} is shorter than a drain of {DRAIN_SECONDS[name] + delay:g} s"
        grace = compose["services"][name]["stop_grace_period"]
        if grace != f"{stop}s":
            yield f"{stack}: StopTimeout {stop}, but compose gives {grace}"


def health_is_asked(stage: Stage) -> Iterator[str]:
    for stack, _, container in tasks(stage):
        if stack == "migrate":
            continue
        check = container.get("HealthCheck")
        if not check:
            yield f"{stack}: no health check"
            continue
        for key, (low, high) in HEALTH_NUMBERS.items():
            if not low <= int(check.get(key, low)) <= high:
                yield f"{stack}: health check {key} {check[key]} is not in {low}-{high}"
        if check["Command"][:1] != ["CMD"] or check["Command"][-1] != container["Name"]:
            yield f"{stack}: health check asks {check['Command']}"


def containers_are_confined(stage: Stage) -> Iterator[str]:
    for stack, task, container in tasks(stage):
        linux = container.get("LinuxParameters", {})
        if "Tmpfs" in linux or "Devices" in linux or "SharedMemorySize" in linux:
            yield f"{stack}: Fargate knows no tmpfs, devices or shared memory"
        if container.get("Privileged"):
            yield f"{stack}: privileged"
        if linux.get("Capabilities", {}).get("Drop") != ["ALL"] or linux.get("Capabilities", {}).get("Add"):
            yield f"{stack}: capabilities are not all dropped"
        if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", str(container.get("User", ""))):
            yield f"{stack}: the user is not a number other than 0"
        if container.get("ReadonlyRootFilesystem") is not True:
            yield f"{stack}: the root file system is writable"
        volumes = {volume["Name"] for volume in task.get("Volumes", [])}
        mounts = {mount["SourceVolume"]: mount["ContainerPath"] for mount in container.get("MountPoints", [])}
        if mounts.keys() != volumes or "/tmp" not in mounts.values():
            yield f"{stack}: no writable /tmp"
        if task.get("NetworkMode") != "awsvpc" or task.get("RequiresCompatibilities") != ["FARGATE"]:
            yield f"{stack}: not a Fargate task"


def images_do_not_move(stage: Stage) -> Iterator[str]:
    for stack, _, container in tasks(stage):
        if not RELEASED.search(str(container["Image"])):
            yield f"{stack}: image {container['Image']} is neither a release nor a digest"
        for name, declared in stage[stack].raw["Parameters"].items():
            pattern = declared.get("AllowedPattern", "")
            if name.endswith("Image") and (not pattern or re.fullmatch(pattern, "repository/name:latest")):
                yield f"{stack}: {name} takes a tag that moves"


def traffic_arrives(stage: Stage) -> Iterator[str]:
    for stack in SERVICES:
        template = stage[stack]
        (service,) = template.of_type("AWS::ECS::Service").values()
        (task,) = template.of_type("AWS::ECS::TaskDefinition").values()
        containers = {one["Name"]: one for one in task["ContainerDefinitions"]}
        for balancer in service.get("LoadBalancers", []):
            container = containers.get(balancer["ContainerName"], {})
            ports = {one["ContainerPort"] for one in container.get("PortMappings", [])}
            if balancer["ContainerPort"] not in ports:
                yield f"{stack}: the balancer's {balancer['ContainerName']}:{balancer['ContainerPort']} does not exist"
            if "ListenerRule" not in _listed(template.raw["Resources"]["Service"].get("DependsOn", [])):
                yield f"{stack}: the service does not wait for its listener rule"
        names = {port["Name"]: port for one in containers.values() for port in one["PortMappings"]}
        for offered in service.get("ServiceConnectConfiguration", {}).get("Services", []):
            if offered["PortName"] not in names:
                yield f"{stack}: Service Connect offers port {offered['PortName']!r}, which no container names"
        if FACTS[stack].port not in {port["ContainerPort"] for port in names.values()}:
            yield f"{stack}: the code's port {FACTS[stack].port} is not mapped"
        for port in names.values():
            if port["ContainerPort"] == 8000 and "AppProtocol" in port:
                yield f"{stack}: AppProtocol on the port of the WebSockets"


def balancer_is_right(stage: Stage) -> Iterator[str]:
    for name, group in stage["gateway"].of_type("AWS::ElasticLoadBalancingV2::TargetGroup").items():
        if group["TargetType"] != "ip":
            yield f"gateway: target type of {name} is {group['TargetType']}, tasks of their own address need ip"
        if group["HealthCheckPath"] != "/readyz" or str(group["HealthCheckPort"]) != str(
            FACTS["gateway"].port
        ):
            yield f"gateway: {name} does not ask the internal port's /readyz"
    for balancer in stage["platform"].of_type("AWS::ElasticLoadBalancingV2::LoadBalancer").values():
        idle = int(_attributes(balancer["LoadBalancerAttributes"])["idle_timeout.timeout_seconds"])
        if idle <= SOCKET_PING_SECONDS:
            yield f"platform: idle timeout {idle} is below the ping interval of {SOCKET_PING_SECONDS} s"
        if idle >= KEEP_ALIVE_SECONDS:
            yield f"platform: idle timeout {idle} is not below the server's keep-alive of {KEEP_ALIVE_SECONDS} s"
    for listener in stage["platform"].of_type("AWS::ElasticLoadBalancingV2::Listener").values():
        if listener["Protocol"] == "HTTPS" and not TLS_POLICY.match(listener.get("SslPolicy", "")):
            yield f"platform: TLS policy {listener.get('SslPolicy')} allows old protocols"
        if listener["Protocol"] == "HTTP" and listener["DefaultActions"][0]["Type"] != "redirect":
            yield "platform: HTTP is answered in clear"


def sockets_leave_in_time(stage: Stage) -> Iterator[str]:
    (group,) = stage["gateway"].of_type("AWS::ElasticLoadBalancingV2::TargetGroup").items()
    delay = int(_attributes(group[1]["TargetGroupAttributes"])["deregistration_delay.timeout_seconds"])
    if not WITHDRAWAL_SECONDS + POLL_SECONDS < delay <= 300:
        yield f"gateway: {group[0]} does not leave sockets the time to move"
    ((_, task, container),) = tasks({"gateway": stage["gateway"]})
    roles = stage["gateway"].of_type("AWS::IAM::Role").items()
    (role,) = (role for name, role in roles if task["TaskRoleArn"] == f"<{name}.Arn>")
    allowed = {action for statement in _statements(role) for action in _listed(statement["Action"])}
    if allowed != {"elasticloadbalancing:DescribeTargetHealth"}:
        yield f"gateway: the code may do {sorted(allowed)}, and needs DescribeTargetHealth alone"
    if environment(container).get("CRYPTOPULSE_GATEWAY_TARGET_GROUP_ARN") != f"<{group[0]}>":
        yield "gateway: the code does not know its target group: sockets are cut at the end of the delay"


def secrets_stay_secret(stage: Stage) -> Iterator[str]:
    known = set(stage["data"].raw["Outputs"]) | {"ExternalSecretArn"}
    for stack, _, container in tasks(stage):
        for name, value in environment(container).items():
            if SECRET_NAME.search(name) or CREDENTIALS.search(str(value)):
                yield f"{stack}: {name} stands in Environment"
        for secret in container.get("Secrets", []):
            reference = str(secret["ValueFrom"])
            match = re.fullmatch(
                r"<(\w+)>|(?:<ExternalSecretArn>|arn:aws:secretsmanager:[^:]+:\d{12}:secret:[\w/+=.@-]+)(:\w+::)?",
                reference,
            )
            if match is None or (match[1] and match[1] not in known):
                yield f"{stack}: {secret['Name']} refers to {reference}, which is no declared secret"
            elif match[1] and stage[stack].raw["Parameters"].get(match[1], {}).get("Default"):
                yield f"{stack}: {match[1]} has a default"


def settings_agree(stage: Stage) -> Iterator[str]:
    for stack, _, container in tasks(stage):
        variables = {one.name: one for one in describe(settings_of(container["Name"]))}
        given = environment(container).keys() | {one["Name"] for one in container.get("Secrets", [])}
        for name in sorted(given - variables.keys()):
            yield f"{stack}: {name} is not a setting of {container['Name']}"
        for one in variables.values():
            if stack != "migrate" and one.field in ServiceSettings.model_fields and one.name not in given:
                yield f"{stack}: {one.name} is a setting of every service and not given"
            if one.required and one.name not in given:
                yield f"{stack}: {one.name} is required and not given"
            if one.secret and one.name in environment(container):
                yield f"{stack}: {one.name} is a secret and stands in Environment"


def services_roll_back(stage: Stage) -> Iterator[str]:
    for stack in SERVICES:
        (service,) = stage[stack].of_type("AWS::ECS::Service").values()
        providers = [one["CapacityProvider"] for one in service.get("CapacityProviderStrategy", [])]
        if bool(providers) == ("LaunchType" in service):
            yield f"{stack}: launch type and capacity providers, or neither"
        if service.get("LoadBalancers") and "FARGATE_SPOT" in providers:
            yield f"{stack}: Spot behind the balancer"
        rollout = service["DeploymentConfiguration"]
        if service.get("AvailabilityZoneRebalancing") == "ENABLED" and rollout["MaximumPercent"] <= 100:
            yield f"{stack}: rebalancing needs a maximum above 100 %"
        if rollout["MinimumHealthyPercent"] < 100:
            yield f"{stack}: fewer tasks than wanted during a deployment"
        if rollout.get("DeploymentCircuitBreaker") != {"Enable": True, "Rollback": True}:
            yield f"{stack}: no circuit breaker with rollback"
        needed = ALTERNATE if rollout.get("Strategy", "ROLLING") != "ROLLING" else frozenset()
        for balancer in service.get("LoadBalancers", []):
            alternate = balancer.get("AdvancedConfiguration", {})
            if alternate.keys() - {"TestListenerRule"} != needed:
                yield f"{stack}: {rollout.get('Strategy', 'ROLLING')} needs {sorted(needed) or 'no alternate'}"
            if alternate.get("AlternateTargetGroupArn") == balancer["TargetGroupArn"]:
                yield f"{stack}: blue and green are one target group"
        alarms = rollout.get("Alarms", {})
        if not (alarms.get("Enable") and alarms.get("Rollback") and alarms.get("AlarmNames")):
            yield f"{stack}: no alarms that roll back"
        if service["NetworkConfiguration"]["AwsvpcConfiguration"].get("AssignPublicIp") != "DISABLED":
            yield f"{stack}: a public address"


def scaling_is_sound(stage: Stage) -> Iterator[str]:
    for stack in SERVICES:
        template = stage[stack]
        for name, policy in template.of_type("AWS::ApplicationAutoScaling::ScalingPolicy").items():
            tracking = policy["TargetTrackingScalingPolicyConfiguration"]
            kinds = {"PredefinedMetricSpecification", "CustomizedMetricSpecification"} & tracking.keys()
            if len(kinds) != 1:
                yield f"{stack}: {name} has {len(kinds)} metric specifications"
        for target in template.of_type("AWS::ApplicationAutoScaling::ScalableTarget").values():
            if int(target["MinCapacity"]) < 1 or int(target["MaxCapacity"]) < int(target["MinCapacity"]):
                yield f"{stack}: scales from {target['MinCapacity']} to {target['MaxCapacity']}"
            if stack in {"indicators", "alerts"} and int(target["MaxCapacity"]) > int(
                template.parameters["Shards"]
            ):
                yield f"{stack}: more tasks than shards"
            if "DesiredCount" in next(iter(template.of_type("AWS::ECS::Service").values())):
                yield f"{stack}: a desired count against the autoscaling"
    shards = {int(stage[stack].parameters["Shards"]) for stack in SERVICES}
    if len(shards) != 1:
        yield f"the services have different numbers of shards: {sorted(shards)}"


def broker_is_right(stage: Stage) -> Iterator[str]:
    data = stage["data"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for broker in data.of_type("AWS::AmazonMQ::Broker").values():
        if not str(broker["HostInstanceType"]).startswith("mq.m7g."):
            yield f"data: RabbitMQ 4 does not run on {broker['HostInstanceType']}"
        single = broker["DeploymentMode"] == "SINGLE_INSTANCE"
        if (len(broker["SubnetIds"]) == 1) is not single:
            yield f"data: {broker['DeploymentMode']} with {len(broker['SubnetIds'])} subnets"
        if broker["AutoMinorVersionUpgrade"] is not True or broker["PubliclyAccessible"] is not False:
            yield "data: the broker must upgrade itself and stay private"
        if broker["Logs"] != {"General": True} or "EncryptionOptions" in broker:
            yield "data: RabbitMQ takes general logs only, and no encryption options"
        if f"rabbitmq:{broker['EngineVersion']}-management" != compose["rabbitmq"]["image"]:
            yield f"data: RabbitMQ {broker['EngineVersion']}, but compose runs {compose['rabbitmq']['image']}"


def stores_are_safe(stage: Stage) -> Iterator[str]:
    data = stage["data"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for valkey in data.of_type("AWS::ElastiCache::ReplicationGroup").values():
        if not (valkey["TransitEncryptionEnabled"] and valkey["AtRestEncryptionEnabled"]):
            yield "data: the cache is not encrypted"
        if f"valkey/valkey:{valkey['EngineVersion']}" != compose["valkey"]["image"]:
            yield f"data: Valkey {valkey['EngineVersion']}, but compose runs {compose['valkey']['image']}"
    for database in data.of_type("AWS::RDS::DBInstance").values():
        if (
            not database["StorageEncrypted"]
            or database["BackupRetentionPeriod"] < 7
            or database["PubliclyAccessible"]
        ):
            yield "data: the database is open, unencrypted or without backups"
        if compose["postgres"]["image"] != f"postgres:{str(database['EngineVersion']).partition('.')[0]}":
            yield f"data: Postgres {database['EngineVersion']}, but compose runs {compose['postgres']['image']}"


def state_outlives_its_stack(stage: Stage) -> Iterator[str]:
    data = stage["data"]
    for kind in (
        "AWS::AmazonMQ::Broker",
        "AWS::ElastiCache::ReplicationGroup",
        "AWS::RDS::DBInstance",
        "AWS::KMS::Key",
    ):
        for name in data.of_type(kind):
            for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
                if data.resources[name].get(policy) not in {"Retain", "Snapshot"}:
                    yield f"data: {name} has no {policy} that keeps it"


def network_is_closed(stage: Stage) -> Iterator[str]:
    network = stage["network"]
    for name, group in network.of_type("AWS::EC2::SecurityGroup").items():
        for rule in group.get("SecurityGroupIngress", []):
            if name != "BalancerSecurityGroup" or rule["FromPort"] not in {80, 443}:
                yield f"network: {name} lets {rule.get('CidrIp')} in on {rule['FromPort']}"
    for name, rule in network.of_type("AWS::EC2::SecurityGroupIngress").items():
        if "CidrIp" in rule or "CidrIpv6" in rule:
            yield f"network: {name} lets a range of addresses in"
    for stack, template in stage.items():
        if stack != "network" and template.of_type("AWS::EC2::SecurityGroup"):
            yield f"{stack}: a security group outside of the network stack"


def logs_end(stage: Stage) -> Iterator[str]:
    for stack, template in stage.items():
        for name, group in template.of_type("AWS::Logs::LogGroup").items():
            if not group.get("RetentionInDays"):
                yield f"{stack}: {name} keeps logs for ever"
    for stack, _, container in tasks(stage):
        options = container["LogConfiguration"]["Options"]
        if options.get("mode") != "non-blocking" or options["awslogs-group"] != "<LogGroup>":
            yield f"{stack}: logs block the process, or go to a group of nobody"


def alarms_lead_somewhere(stage: Stage) -> Iterator[str]:
    anchors = runbook_anchors()
    for stack, template in stage.items():
        for name, alarm in template.of_type("AWS::CloudWatch::Alarm").items():
            if not alarm.get("AlarmActions"):
                yield f"{stack}: {name} tells nobody"
            match = re.search(r"docs/ops/runbooks\.md#([a-z]+)", alarm["AlarmDescription"])
            if match is None or match[1] not in anchors:
                yield f"{stack}: {name} has no page in the runbooks"


def figures_exist(stage: Stage) -> Iterator[str]:
    written = {
        environment(one).get(f"CRYPTOPULSE_{one['Name'].upper()}_CLOUDWATCH_NAMESPACE")
        for _, _, one in tasks(stage)
    }
    for stack, where, namespace, figure, dimensions in looked_at(stage):
        queue = dimensions.get("Queue")
        if queue is not None and queue not in queue_names(int(stage["indicators"].parameters["Shards"])):
            yield f"{stack}: {where} names the queue {queue}, which nobody declares"
        if namespace.startswith("AWS/"):
            continue
        service = dimensions.get("Service")
        if namespace not in written:
            yield f"{stack}: {where} looks into {namespace}, where no service writes"
        if figure not in {one.name for one in FIGURES}:
            yield f"{stack}: {where} looks at {figure}, which no service writes"
        if len(dimensions) != 1 or service not in SERVICES or (stack in SERVICES and service != stack):
            yield f"{stack}: {where} looks at {figure} of {dimensions}, which nobody writes"


def templates_fit(stage: Stage) -> Iterator[str]:
    for stack, template in stage.items():
        resources = len(template.raw["Resources"])
        if template.size_bytes > 51_200 or resources > 500:
            yield f"{stack}: {template.size_bytes} bytes, {resources} resources: more than CloudFormation takes"


POLICIES: Final = (
    roles_are_named, stops_in_time, health_is_asked, containers_are_confined, images_do_not_move, traffic_arrives,
    balancer_is_right, sockets_leave_in_time, secrets_stay_secret, settings_agree, services_roll_back, scaling_is_sound, broker_is_right, stores_are_safe, state_outlives_its_stack,
    network_is_closed, logs_end, alarms_lead_somewhere, figures_exist, templates_fit,
)  # fmt: skip


def runbook_anchors() -> frozenset[str]:
    """The pages that an alarm may name."""
    text = (ROOT / "docs/ops/runbooks.md").read_text(encoding="utf-8")
    return frozenset(title.lower() for title in re.findall(r"^## (\w+)$", text, flags=re.MULTILINE))


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    """Name -> value of a container's plain variables."""
    return {one["Name"]: one["Value"] for one in container.get("Environment", [])}


def _statements(role: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for policy in role.get("Policies", []):
        yield from policy["PolicyDocument"]["Statement"]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _attributes(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {one["Key"]: one["Value"] for one in pairs}
