#!/bin/sh
# The rights of api in Kafka. Arguments go to kafka-acls.sh: --bootstrap-server HOST:PORT --command-config FILE
set -eu
server="$*"
# shellcheck disable=SC2086
acls() { kafka-acls.sh $server "$@"; }
acls --add --allow-principal User:api --operation Write --topic purchases
acls --add --allow-principal User:api --operation DescribeConfigs --topic purchases
