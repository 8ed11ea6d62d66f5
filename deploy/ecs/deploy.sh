#!/usr/bin/env bash
# deploy/ecs/deploy.sh: validates, and deploys the stacks of a stage in their order. See README.md beside it.
#   deploy.sh [--dry-run] --params params/small.json --release 1.4.0 --registry REGISTRY [STACK...]
# Without STACK all of them: network data platform migrate ingestor indicators portfolio alerts gateway.
# A parameter is taken from the file (section of the stack, then "all"), from NAME=VALUE in --set, or from the output of
# the same name of an earlier stack. --dry-run talks to nobody: it prints what would be called.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

ORDER=(network data platform migrate ingestor indicators portfolio alerts gateway)
MIGRATED=(indicators alerts portfolio gateway)
dry_run="" params="" release="" registry="" bucket="" sets=() wanted=()

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit "${1:-0}"; }
die() { echo "deploy.sh: $*" >&2; exit 1; }
while [ $# -gt 0 ]; do
    case "$1" in
        --dry-run) dry_run=1 ;;
        --params) params=${2:?}; shift ;;
        --release) release=${2:?}; shift ;;
        --registry) registry=${2:?}; shift ;;
        --bucket) bucket=${2:?}; shift ;;
        --set) sets+=("${2:?}"); shift ;;
        -h | --help) usage ;;
        -*) die "unknown option $1" ;;
        *) [ -f "$1.yaml" ] || die "there is no stack $1"; wanted+=("$1") ;;
    esac
    shift
done
[ -n "$params" ] || usage 1
[ -f "$params" ] || die "there is no $params"
[ ${#wanted[@]} -gt 0 ] || wanted=("${ORDER[@]}")

# read_params STACK: NAME=VALUE lines for the parameters that its template declares.
read_params() {
    python3 - "$params" "$1" "$release" "$registry" "${sets[@]+"${sets[@]}"}" <<'PY'
import json, re, sys
path, stack, release, registry, *sets = sys.argv[1:]
given = json.load(open(path, encoding="utf-8"))
text = open(f"{stack}.yaml", encoding="utf-8").read().split("\nParameters:\n", 1)[1]
blocks = re.findall(r"^  (\w+):((?:.*\n)(?:^   .*\n)*)", re.split(r"^\S", text, maxsplit=1, flags=re.M)[0], flags=re.M)
declared = {name: "Default:" in block for name, block in blocks}
values = {**given.get("all", {}), **given.get(stack, {}), **dict(one.split("=", 1) for one in sets)}
unknown = sorted(set(given.get(stack, {})) - set(declared))
if unknown:
    sys.exit(f"deploy.sh: {path}: {stack} has no parameter {', '.join(unknown)}")
for name in declared:
    image = re.fullmatch(r"(Ingestor|Indicators|Alerts|Portfolio|Gateway)Image", name)
    if name in values:
        print(f"{name}={values[name]}")
    elif image and release and registry:
        print(f"{name}={registry}/cryptopulse/{image[1].lower()}:{release}")
    else:
        print(f"{name}?{'optional' if declared[name] else ''}")
PY
}
value_of() { read_params network | sed -n "s/^$1=//p"; }
stage=$(value_of Stage)
[ -n "$stage" ] || die "$params: no Stage"

run() { if [ -n "$dry_run" ]; then printf '  would run:'; printf ' %q' "$@"; printf '\n'; else "$@"; fi; }

# The outputs of the stacks before this one; in a dry run the outputs that their templates declare.
declare -A outputs=()
learn() {
    local stack=$1 name value
    if [ -n "$dry_run" ]; then
        while read -r name; do outputs[$name]="<$stack.$name>"; done < <(sed -n '/^Outputs:/,$s/^  \([A-Za-z0-9]*\):.*/\1/p' "$stack.yaml")
        return
    fi
    while IFS=$'\t' read -r name value; do [ -z "$name" ] || outputs[$name]=$value; done < <(
        aws cloudformation describe-stacks --stack-name "cryptopulse-$stage-$stack" \
            --query 'Stacks[0].Outputs[].[OutputKey,OutputValue]' --output text 2>/dev/null || true)
}

migrate() {
    local service arn task code
    for service in "${MIGRATED[@]}"; do
        arn=${outputs[Migrate${service^}TaskDefinitionArn]:?no migration task of $service}
        echo "migrating the schema of $service"
        local network="awsvpcConfiguration={subnets=[${outputs[PrivateSubnetIds]}],securityGroups=[${outputs[MigrateSecurityGroupId]}],assignPublicIp=DISABLED}"
        local call=(aws ecs run-task --cluster "${outputs[ClusterName]}" --launch-type FARGATE --task-definition "$arn" --network-configuration "$network" --query 'tasks[0].taskArn' --output text)
        if [ -n "$dry_run" ]; then run "${call[@]}"; continue; fi
        task=$("${call[@]}")
        aws ecs wait tasks-stopped --cluster "${outputs[ClusterName]}" --tasks "$task"
        code=$(aws ecs describe-tasks --cluster "${outputs[ClusterName]}" --tasks "$task" --query 'tasks[0].containers[0].exitCode' --output text)
        [ "$code" = 0 ] || die "the migration of $service ended with $code: see the log group /cryptopulse/$stage/migrate; nothing was deployed after it"
    done
}

for stack in "${ORDER[@]}"; do
    case " ${wanted[*]} " in *" $stack "*) ;; *) learn "$stack"; continue ;; esac
    overrides=() missing=()
    lines=$(read_params "$stack")
    while read -r line; do
        case "$line" in
            *=*) overrides+=("$line") ;;
            *\?*)
                name=${line%%\?*}
                if [ -n "${outputs[$name]:-}" ]; then overrides+=("$name=${outputs[$name]}")
                elif [ "${line#*\?}" != optional ]; then missing+=("$name"); fi ;;
        esac
    done <<<"$lines"
    [ ${#missing[@]} -eq 0 ] || die "$stack: no value for ${missing[*]} (give it in $params, with --set NAME=VALUE, or deploy the stacks before it)"
    echo "stack cryptopulse-$stage-$stack"
    template=$stack.yaml
    run aws cloudformation validate-template --template-body "file://$template" --output text --query Description
    if [ -n "$bucket" ]; then
        run aws cloudformation package --template-file "$template" --s3-bucket "$bucket" --output-template-file "/tmp/cryptopulse-$stack.yaml"
        [ -n "$dry_run" ] || template=/tmp/cryptopulse-$stack.yaml
    fi
    run aws cloudformation deploy --stack-name "cryptopulse-$stage-$stack" --template-file "$template" \
        --capabilities CAPABILITY_IAM --no-fail-on-empty-changeset --tags "stage=$stage" project=cryptopulse \
        --parameter-overrides "${overrides[@]}"
    learn "$stack"
    [ "$stack" != migrate ] || migrate
done
echo "done: ${wanted[*]}"
