"""The templates keep every policy with both files of parameters, and each planted mistake is found by the policy meant for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.deploy import policies
from tests.deploy.cfn import PARAMS, SERVICES, STACKS, all_stacks, text_of

Policy = Callable[[policies.Stage], Iterator[str]]


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda policy: policy.__name__)
def test_the_templates_keep_the_policy(policy: Policy, params: str) -> None:
    assert list(policy(all_stacks(params))) == []


MISTAKES: dict[str, tuple[str, str, str, Policy, str]] = {
    "no execution role": ("alerts", "      ExecutionRoleArn: !GetAtt ExecutionRole.Arn\n", "", policies.roles_are_named, "no execution role"),
    "a role for everything": ("portfolio", "Resource: !GetAtt LogGroup.Arn", 'Resource: "*"', policies.roles_are_named, "on everything"),
    "stop timeout above 120": ("gateway", "StopTimeout: 90", "StopTimeout: 150", policies.stops_in_time, "above Fargate's 120"),
    "stop timeout below the drain": ("alerts", "StopTimeout: 90", "StopTimeout: 30", policies.stops_in_time, "shorter than a drain"),
    "health-check timeout above 60": ("gateway", "            Timeout: 5\n", "            Timeout: 90\n", policies.health_is_asked, "Timeout 90"),
    "tmpfs on Fargate": ("indicators", "LinuxParameters: {", "LinuxParameters: {Tmpfs: [{ContainerPath: /tmp, Size: 64}], ", policies.containers_are_confined, "no tmpfs"),
    "root": ("indicators", 'User: "10001:10001"', "User: root", policies.containers_are_confined, "not a number"),
    "wrong container name": ("gateway", "ContainerName: gateway", "ContainerName: web", policies.traffic_arrives, "does not exist"),
    "wrong container port": ("gateway", "ContainerPort: 8000, TargetGroupArn", "ContainerPort: 8080, TargetGroupArn", policies.traffic_arrives, "does not exist"),
    "Service Connect port name": ("ingestor", "PortName: internal", "PortName: intrenal", policies.traffic_arrives, "'intrenal'"),
    "wrong port of the code": ("alerts", "ContainerPort: 9103", "ContainerPort: 9113", policies.traffic_arrives, "is not mapped"),
    "malformed secret reference": ("gateway", "{Name: JWT_SECRET, ValueFrom: !Ref JwtSecretArn}", '{Name: JWT_SECRET, ValueFrom: !Sub "${JwtSecretArn}:key"}', policies.secrets_stay_secret, "no declared secret"),
    "secret of nobody": ("gateway", "ValueFrom: !Ref JwtSecretArn", 'ValueFrom: "<JwtSecert>"', policies.secrets_stay_secret, "no declared secret"),
    "password in Environment": ("portfolio", "            - {Name: FEED, Value: live}\n", "            - {Name: FEED, Value: live}\n            - {Name: DB_PASSWORD, Value: hunter2}\n", policies.secrets_stay_secret, "DB_PASSWORD stands in Environment"),
    "credentials in a URL": ("portfolio", "http://ingestor:9101", '"http://user:pass@ingestor:9101"', policies.secrets_stay_secret, "INGESTOR_URL stands in Environment"),
    "unknown setting": ("ingestor", "CRYPTOPULSE_INGESTOR_VENUES", "CRYPTOPULSE_INGESTOR_VENUE", policies.settings_agree, "is not a setting"),
    "missing setting": ("alerts", "            - {Name: REDIS_URL, ValueFrom: !Ref RedisUrlArn}\n", "", policies.settings_agree, "REDIS_URL is required"),
    "a service without traces": ("portfolio", "            - {Name: OTEL_EXPORTER_OTLP_ENDPOINT, Value: !Ref TracesEndpoint}\n", "", policies.settings_agree, "a setting of every service"),
    "RabbitMQ 4 on a wrong instance": ("data", "HostInstanceType: !Ref BrokerInstanceType", "HostInstanceType: mq.m5.large", policies.broker_is_right, "does not run on mq.m5.large"),
    "cluster broker with one subnet": ("data", "SubnetIds: !If [IsCluster, !Ref PrivateSubnetIds, [!Select [0, !Ref PrivateSubnetIds]]]", "SubnetIds: [!Select [0, !Ref PrivateSubnetIds]]", policies.broker_is_right, "with 1 subnets"),
    "another RabbitMQ than compose": ("data", 'EngineVersion: "4.2"', 'EngineVersion: "4.1"', policies.broker_is_right, "but compose runs"),
    "another Valkey than compose": ("data", 'EngineVersion: "8.1"', 'EngineVersion: "7.2"', policies.stores_are_safe, "but compose runs"),
    "an unencrypted database": ("data", "StorageEncrypted: true", "StorageEncrypted: false", policies.stores_are_safe, "unencrypted"),
    "a database that goes with its stack": ("data", "    Type: AWS::RDS::DBInstance\n    DeletionPolicy: Snapshot\n", "    Type: AWS::RDS::DBInstance\n", policies.state_outlives_its_stack, "no DeletionPolicy"),
    "both metric kinds in one policy": ("gateway", "        PredefinedMetricSpecification:", "        CustomizedMetricSpecification: {Namespace: a, MetricName: b, Statistic: Sum}\n        PredefinedMetricSpecification:", policies.scaling_is_sound, "2 metric specifications"),
    "more tasks than shards": ("indicators", "MaxCapacity: !Ref MaxTasks", "MaxCapacity: 9", policies.scaling_is_sound, "more tasks than shards"),
    "bad TLS policy": ("platform", "ELBSecurityPolicy-TLS13-1-2-2021-06", "ELBSecurityPolicy-2016-08", policies.balancer_is_right, "old protocols"),
    "target type instance": ("gateway", "TargetType: ip", "TargetType: instance", policies.balancer_is_right, "target type"),
    "a delay shorter than the farewell": ("gateway", 'deregistration_delay.timeout_seconds, Value: "60"', 'deregistration_delay.timeout_seconds, Value: "30"', policies.sockets_leave_in_time, "time to move"),
    "a gateway that does not know its target group": ("gateway", "            - {Name: CRYPTOPULSE_GATEWAY_TARGET_GROUP_ARN, Value: !Ref TargetGroup}\n", "", policies.sockets_leave_in_time, "does not know its target group"),
    "a gateway that may not ask": ("gateway", "elasticloadbalancing:DescribeTargetHealth", "elasticloadbalancing:DescribeTargetGroups", policies.sockets_leave_in_time, "needs DescribeTargetHealth alone"),
    "idle timeout below the pings": ("platform", 'idle_timeout.timeout_seconds, Value: "120"', 'idle_timeout.timeout_seconds, Value: "15"', policies.balancer_is_right, "below the ping interval"),
    "idle timeout above keep-alive": ("platform", 'idle_timeout.timeout_seconds, Value: "120"', 'idle_timeout.timeout_seconds, Value: "600"', policies.balancer_is_right, "keep-alive"),
    "health path that is no route": ("gateway", "HealthCheckPath: /readyz", "HealthCheckPath: /ready", policies.balancer_is_right, "/readyz"),
    "launch type with capacity providers": ("portfolio", "      CapacityProviderStrategy:\n", "      LaunchType: FARGATE\n      CapacityProviderStrategy:\n", policies.services_roll_back, "launch type"),
    "rebalancing with 100 %": ("alerts", "MaximumPercent: 200", "MaximumPercent: 100", policies.services_roll_back, "rebalancing"),
    "no rollback": ("ingestor", "DeploymentCircuitBreaker: {Enable: true, Rollback: true}", "DeploymentCircuitBreaker: {Enable: true, Rollback: false}", policies.services_roll_back, "circuit breaker"),
    "Spot behind the balancer": ("gateway", "{CapacityProvider: FARGATE, Base: 1, Weight: 1}", "{CapacityProvider: FARGATE_SPOT, Weight: 1}", policies.services_roll_back, "Spot"),
    "mutable image tag": ("gateway", "Image: !Ref GatewayImage", "Image: cryptopulse/gateway:latest", policies.images_do_not_move, "neither a release nor a digest"),
    "a parameter for any tag": ("gateway", "    AllowedPattern: \"[^ ]+(:v", "    AllowedPattern: \".*|(:v", policies.images_do_not_move, "takes a tag that moves"),
    "missing log retention": ("alerts", "      RetentionInDays: !Ref LogRetentionDays\n", "", policies.logs_end, "for ever"),
    "logs that block": ("alerts", "mode: non-blocking", "mode: blocking", policies.logs_end, "block"),
    "a database open to the world": ("network", "      SourceSecurityGroupId: !GetAtt MigrateSecurityGroup.GroupId\n", "      CidrIp: 0.0.0.0/0\n", policies.network_is_closed, "range of addresses"),
    "a figure that no service writes": ("indicators", "MetricName: QueueReadyMessages", "MetricName: QueueReady", policies.figures_exist, "BacklogPolicy looks at QueueReady,"),
    "a figure of another service": ("alerts", "Dimensions: [{Name: Service, Value: alerts}]", "Dimensions: [{Name: Service, Value: alert}]", policies.figures_exist, "which nobody writes"),
    "a namespace of another stage": ("ingestor", 'Namespace: !Sub "CryptoPulse/${Stage}"', 'Namespace: "CryptoPulse/other"', policies.figures_exist, "where no service writes"),
    "a dashboard of nothing": ("platform", '"SocketsOpen"', '"OpenSockets"', policies.figures_exist, "Dashboard looks at OpenSockets"),
    "a queue of nobody": ("platform", "Dimensions: [{Name: Broker, Value: !Ref BrokerName}]", "Dimensions: [{Name: Broker, Value: !Ref BrokerName}, {Name: Queue, Value: alerts.event.v1}]", policies.figures_exist, "which nobody declares"),
    "more bytes than CloudFormation takes": ("gateway", "Resources:\n", "Resources:\n" + "  # A long story.\n" * 2_500, policies.templates_fit, "bytes"),
    "more resources than CloudFormation takes": ("gateway", "Resources:\n", "Resources:\n" + "".join(f"  T{n}: {{Type: AWS::SNS::Topic}}\n" for n in range(500)), policies.templates_fit, "more than CloudFormation takes"),
    "blue and green without an alternate": ("gateway", "        MinimumHealthyPercent: 100\n", "        Strategy: BLUE_GREEN\n        MinimumHealthyPercent: 100\n", policies.services_roll_back, "BLUE_GREEN needs"),
    "an alternate of a rolling deployment": ("gateway", "TargetGroupArn: !Ref TargetGroup}\n", "TargetGroupArn: !Ref TargetGroup, AdvancedConfiguration: {AlternateTargetGroupArn: a, ProductionListenerRule: b, RoleArn: c}}\n", policies.services_roll_back, "ROLLING needs no alternate"),
    "blue and green in one target group": ("gateway", "TargetGroupArn: !Ref TargetGroup}\n", "TargetGroupArn: !Ref TargetGroup, AdvancedConfiguration: {AlternateTargetGroupArn: !Ref TargetGroup}}\n", policies.services_roll_back, "one target group"),
    "an alarm without a page": ("gateway", "runbooks.md#eventlooplag", "runbooks.md#nothing", policies.alarms_lead_somewhere, "no page"),
    "an alarm that tells nobody": ("ingestor", "      AlarmActions: [!Ref AlarmTopicArn]\n", "", policies.alarms_lead_somewhere, "tells nobody"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake: str) -> None:
    stack, good, bad, policy, finding = MISTAKES[mistake]
    text = text_of(stack)
    assert good in text, "the mistake cannot be planted any more"
    found = list(policy(all_stacks("large", {stack: text.replace(good, bad, 1)})))
    assert [one for one in found if finding in one], found


@pytest.mark.parametrize("params", PARAMS)
def test_traces_go_nowhere_unless_a_stage_names_a_collector(params: str) -> None:
    given = {
        stack: policies.environment(container).get("OTEL_EXPORTER_OTLP_ENDPOINT")
        for stack, _, container in policies.tasks(all_stacks(params))
        if stack in SERVICES
    }
    assert given == dict.fromkeys(SERVICES, "")


@pytest.mark.parametrize("stack", SERVICES)
@pytest.mark.parametrize(
    ("endpoint", "is_taken"),
    [
        ("", True), ("http://collector.internal:4318", True), ("https://otlp.example.com/a/b", True),
        ("collector:4318", False), ("http://user:password@collector:4318", False), ("http://", False),
    ],
)  # fmt: skip
def test_a_collector_is_an_address_without_credentials(stack: str, endpoint: str, is_taken: bool) -> None:
    pattern = all_stacks("small")[stack].raw["Parameters"]["TracesEndpoint"]["AllowedPattern"]
    assert (re.fullmatch(pattern, endpoint) is not None) is is_taken


def test_every_policy_has_a_mistake_that_it_finds() -> None:
    aimed = {policy for _, _, _, policy, _ in MISTAKES.values()}
    assert set(policies.POLICIES) == aimed


def test_queues_of_the_catalogue_may_be_looked_at() -> None:
    stack, good, bad, policy, _ = MISTAKES["a queue of nobody"]
    for name in ("alerts.prices.v1.7of8", "alerts.candles.v1.dlq"):
        text = text_of(stack).replace(good, bad.replace("alerts.event.v1", name), 1)
        assert list(policy(all_stacks("large", {stack: text}))) == []


@pytest.mark.parametrize("stack", STACKS)
def test_what_a_stack_asks_for_is_given_by_a_stack_before_it(stack: str) -> None:
    stage = all_stacks("large")
    offered = {"CertificateArn"} | {
        name for one in STACKS[: STACKS.index(stack)] for name in stage[one].raw.get("Outputs", {})
    }
    asked = {
        name
        for name, declared in stage[stack].raw["Parameters"].items()
        if "Default" not in declared
        and stage[stack].parameters[name] in (f"<{name}>", [f"<{name}-{z}>" for z in "abc"])
    }
    assert asked <= offered
