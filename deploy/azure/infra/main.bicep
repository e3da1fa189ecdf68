// What Azure's side stands on, in one resource group. docs/azure.md says what each part is for and what it costs by.
//
//   az deployment group create --resource-group edge-ai --template-file deploy/azure/infra/main.bicep \
//      --parameters name=edgeai administrators=GROUP_OBJECT_ID sourceEndpoint=https://plant.blob.core.windows.net \
//                   postgresPassword="Pg$(openssl rand -hex 24)"
//
// No service has a key: each says who it is by an identity, and may do what is written beside it.

@description('What all names begin with: lower-case letters and digits, unique in the world.')
@minLength(5)
@maxLength(16)
param name string

param location string = resourceGroup().location

@description('Object id of the Entra group that looks after the cluster and signs releases by hand.')
param administrators string

@description('Of Dagster\'s database: capitals, small letters and digits, nothing that an address would have to escape.')
@secure()
@minLength(16)
param postgresPassword string

@description('Where Data Factory copies readings from: blobs of an account that its identity may read.')
param sourceEndpoint string

@description('Whether signatures (SAS) open the account, for sites and functions without an identity in Entra.')
param signatures bool = false

@description('Nodes that train in the cluster; with a graphics processor, say, Standard_NC4as_T4_v3.')
param trainingVmSize string = 'Standard_D4s_v5'

@description('Nodes that train in Azure Machine Learning.')
param workspaceVmSize string = 'Standard_D4s_v3'

var namespace = 'edge-ai'
var pool = 'edge-ai-assets/pool'
var repository = 'edge/releases'
var roles = { // Azure's own, by the ids that its documentation gives them
  acrPull: '7f951dda-4ed3-4680-a7ca-43fe172d538d'
  acrPush: '8311e382-0749-4cb8-b61a-304f252e45ec'
  blobContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  blobReader: '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
  clusterAdministrator: 'b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b'
  dataScientist: 'f6c7c914-8db3-469d-8ca1-694a8f32e121'
  networkContributor: '4d97b98b-1d4f-4787-a291-c67834d212e7'
}

// ---- Who: one identity for code and runs, one for the web server, one for the cluster itself.

resource code 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-code'
  location: location
}

resource web 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-web'
  location: location
}

resource control 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-cluster'
  location: location
}

resource codeAccount 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = {
  parent: code
  name: 'dagster'
  properties: {
    issuer: cluster.properties.oidcIssuerProfile.issuerURL
    subject: 'system:serviceaccount:${namespace}:dagster'
    audiences: ['api://AzureADTokenExchange']
  }
}

resource webAccount 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = {
  parent: web
  name: 'dagster-launcher'
  properties: {
    issuer: cluster.properties.oidcIssuerProfile.issuerURL
    subject: 'system:serviceaccount:${namespace}:dagster-launcher'
    audiences: ['api://AzureADTokenExchange']
  }
}

// ---- The lake, the landing zone, the sites' packages, logs, the static website. Hierarchical: Data Lake Storage.

resource lake 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: name
  location: location
  kind: 'StorageV2'
  sku: { name: 'Standard_ZRS' }
  properties: {
    isHnsEnabled: true
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowSharedKeyAccess: signatures
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: lake
  name: 'default'
  properties: {
    deleteRetentionPolicy: { enabled: true, days: 14 }
    containerDeleteRetentionPolicy: { enabled: true, days: 14 }
  }
}

// `az storage blob service-properties update --static-website` adds $web: no template can.
var containers = ['lake', 'landing', 'uplink', 'logs']

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = [
  for each in containers: {
    parent: blobs
    name: each
    properties: { publicAccess: 'None' }
  }
]

// What a site may do with packages: write and read, never delete. Given to each site by hand, see docs/azure.md.
resource sends 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'sends packages')
  properties: {
    roleName: '${name}: sends packages'
    type: 'CustomRole'
    assignableScopes: [resourceGroup().id]
    permissions: [
      {
        dataActions: [
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write'
          'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action'
        ]
      }
    ]
  }
}

resource codeData 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: lake
  name: guid(lake.id, code.id, roles.blobContributor)
  properties: {
    principalId: code.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.blobContributor)
  }
}

resource webLogs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: container[3]
  name: guid(lake.id, 'logs', web.id, roles.blobReader)
  properties: {
    principalId: web.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.blobReader)
  }
}

resource factoryLands 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: container[1]
  name: guid(lake.id, 'landing', factory.id, roles.blobContributor)
  properties: {
    principalId: factory.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.blobContributor)
  }
}

// ---- The registry of releases, and of the images of the cluster.

resource registry 'Microsoft.ContainerRegistry/registries@2025-04-01' = {
  name: name
  location: location
  sku: { name: 'Standard' }
  properties: { adminUserEnabled: false, anonymousPullEnabled: false }
}

resource codePushes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, code.id, roles.acrPush)
  properties: {
    principalId: code.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.acrPush)
  }
}

resource nodesPull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, cluster.id, roles.acrPull)
  properties: {
    principalId: cluster.properties.identityProfile.kubeletidentity.objectId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.acrPull)
  }
}

// ---- The key that signs releases. Whoever may sign cannot read it, export it or make another.

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: '${name}-keys'
  location: location
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
  }
}

resource releases 'Microsoft.KeyVault/vaults/keys@2023-07-01' = {
  parent: vault
  name: 'releases'
  properties: { kty: 'EC', curveName: 'P-256', keyOps: ['sign', 'verify'] }
}

resource signs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'signs releases')
  properties: {
    roleName: '${name}: signs releases'
    type: 'CustomRole'
    assignableScopes: [resourceGroup().id]
    permissions: [
      { dataActions: ['Microsoft.KeyVault/vaults/keys/read', 'Microsoft.KeyVault/vaults/keys/sign/action'] }
    ]
  }
}

resource codeSigns 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: releases
  name: guid(releases.id, code.id, signs.id)
  properties: {
    principalId: code.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: signs.id
  }
}

resource administratorsSign 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: releases
  name: guid(releases.id, administrators, signs.id)
  properties: {
    principalId: administrators
    principalType: 'Group'
    roleDefinitionId: signs.id
  }
}

// ---- Azure Machine Learning, with a storage account and a vault of its own: it may not use one that is hierarchical.

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: '${name}-logs'
  location: location
  properties: { sku: { name: 'PerGB2018' }, retentionInDays: 30, workspaceCapping: { dailyQuotaGb: 5 } }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${name}-training'
  location: location
  kind: 'web'
  properties: { Application_Type: 'web', WorkspaceResourceId: logs.id }
}

resource scratch 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: '${name}ml'
  location: location
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource secrets 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: '${name}-ml'
  location: location
  properties: {
    tenantId: subscription().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
  }
}

resource training 'Microsoft.MachineLearningServices/workspaces@2025-06-01' = {
  name: '${name}-training'
  location: location
  identity: { type: 'SystemAssigned' }
  sku: { name: 'Basic', tier: 'Basic' }
  properties: {
    storageAccount: scratch.id
    keyVault: secrets.id
    applicationInsights: insights.id
    containerRegistry: registry.id
    systemDatastoresAuthMode: 'Identity'
  }
}

resource compute 'Microsoft.MachineLearningServices/workspaces/computes@2025-06-01' = {
  parent: training
  name: 'cpu'
  location: location
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${code.id}': {} } }
  properties: {
    computeType: 'AmlCompute'
    disableLocalAuth: true
    properties: {
      vmSize: workspaceVmSize
      vmPriority: 'Dedicated'
      osType: 'Linux'
      remoteLoginPortPublicAccess: 'Disabled'
      scaleSettings: { minNodeCount: 0, maxNodeCount: 2, nodeIdleTimeBeforeScaleDown: 'PT5M' }
    }
  }
}

// Where jobs find the lake: training sets, what they are given, and where their candidates go.
resource lakeStore 'Microsoft.MachineLearningServices/workspaces/datastores@2025-06-01' = {
  parent: training
  name: 'lake'
  properties: {
    datastoreType: 'AzureBlob'
    accountName: lake.name
    containerName: 'lake'
    endpoint: environment().suffixes.storage
    protocol: 'https'
    credentials: { credentialsType: 'None' }
    serviceDataAccessAuthIdentity: 'WorkspaceSystemAssignedIdentity'
  }
}

resource codeTrains 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: training
  name: guid(training.id, code.id, roles.dataScientist)
  properties: {
    principalId: code.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.dataScientist)
  }
}

resource codeScratch 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: scratch
  name: guid(scratch.id, code.id, roles.blobContributor)
  properties: {
    principalId: code.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.blobContributor)
  }
}

// ---- Data Factory: files from where readings come from into the landing zone, below a folder of the run.

resource factory 'Microsoft.DataFactory/factories@2018-06-01' = {
  name: '${name}-ingestion'
  location: location
  identity: { type: 'SystemAssigned' }
}

resource source 'Microsoft.DataFactory/factories/linkedservices@2018-06-01' = {
  parent: factory
  name: 'source'
  properties: {
    type: 'AzureBlobStorage'
    typeProperties: { serviceEndpoint: sourceEndpoint, accountKind: 'StorageV2' }
  }
}

resource target 'Microsoft.DataFactory/factories/linkedservices@2018-06-01' = {
  parent: factory
  name: 'target'
  properties: {
    type: 'AzureBlobFS'
    typeProperties: { url: lake.properties.primaryEndpoints.dfs }
  }
}

resource readings 'Microsoft.DataFactory/factories/datasets@2018-06-01' = {
  parent: factory
  name: 'readings'
  properties: {
    type: 'Binary'
    linkedServiceName: { type: 'LinkedServiceReference', referenceName: source.name }
    parameters: { container: { type: 'String' }, folder: { type: 'String' } }
    typeProperties: {
      location: {
        type: 'AzureBlobStorageLocation'
        container: { value: '@dataset().container', type: 'Expression' }
        folderPath: { value: '@dataset().folder', type: 'Expression' }
      }
    }
  }
}

resource landed 'Microsoft.DataFactory/factories/datasets@2018-06-01' = {
  parent: factory
  name: 'landed'
  properties: {
    type: 'Binary'
    linkedServiceName: { type: 'LinkedServiceReference', referenceName: target.name }
    parameters: { folder: { type: 'String' } }
    typeProperties: {
      location: {
        type: 'AzureBlobFSLocation'
        fileSystem: 'landing'
        folderPath: { value: '@dataset().folder', type: 'Expression' }
      }
    }
  }
}

resource land 'Microsoft.DataFactory/factories/pipelines@2018-06-01' = {
  parent: factory
  name: 'land'
  properties: {
    parameters: {
      container: { type: 'String', defaultValue: 'readings' }
      folder: { type: 'String', defaultValue: '' }
      pattern: { type: 'String', defaultValue: '*' }
      // By it a restarted run of Dagster finds the pipeline run that it started.
      dagster_run: { type: 'String', defaultValue: '' }
    }
    activities: [
      {
        name: 'land'
        type: 'Copy'
        policy: { timeout: '0.02:00:00', retry: 2, retryIntervalInSeconds: 60 }
        inputs: [
          {
            type: 'DatasetReference'
            referenceName: readings.name
            parameters: {
              container: { value: '@pipeline().parameters.container', type: 'Expression' }
              folder: { value: '@pipeline().parameters.folder', type: 'Expression' }
            }
          }
        ]
        outputs: [
          {
            type: 'DatasetReference'
            referenceName: landed.name
            parameters: { folder: { value: '@pipeline().RunId', type: 'Expression' } }
          }
        ]
        typeProperties: {
          source: {
            type: 'BinarySource'
            storeSettings: {
              type: 'AzureBlobStorageReadSettings'
              recursive: true
              wildcardFileName: { value: '@pipeline().parameters.pattern', type: 'Expression' }
            }
          }
          sink: { type: 'BinarySink', storeSettings: { type: 'AzureBlobFSWriteSettings' } }
        }
      }
    ]
  }
}

resource runs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'runs pipelines')
  properties: {
    roleName: '${name}: runs pipelines'
    type: 'CustomRole'
    assignableScopes: [resourceGroup().id]
    permissions: [
      {
        actions: [
          'Microsoft.DataFactory/factories/read'
          'Microsoft.DataFactory/factories/pipelines/read'
          'Microsoft.DataFactory/factories/pipelines/createrun/action'
          'Microsoft.DataFactory/factories/pipelineruns/*'
          'Microsoft.DataFactory/factories/querypipelineruns/*'
        ]
      }
    ]
  }
}

resource codeIngests 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: factory
  name: guid(factory.id, code.id, runs.id)
  properties: {
    principalId: code.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: runs.id
  }
}

// ---- The network of the cluster and of PostgreSQL, which has no address outside it.

resource network 'Microsoft.Network/virtualNetworks@2023-11-01' = {
  name: name
  location: location
  properties: {
    addressSpace: { addressPrefixes: ['10.40.0.0/16'] }
    subnets: [
      {
        name: 'nodes'
        properties: {
          addressPrefix: '10.40.0.0/20'
          // By it the share with the home lets nodes in. Its driver would add it, the next deployment take it away.
          serviceEndpoints: [{ service: 'Microsoft.Storage' }]
        }
      }
      {
        name: 'postgres'
        properties: {
          addressPrefix: '10.40.16.0/28'
          delegations: [
            { name: 'postgres', properties: { serviceName: 'Microsoft.DBforPostgreSQL/flexibleServers' } }
          ]
        }
      }
    ]
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: '${name}.private.postgres.database.azure.com'
  location: 'global'
}

resource zoneOfNetwork 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = {
  parent: zone
  name: name
  location: 'global'
  properties: { registrationEnabled: false, virtualNetwork: { id: network.id } }
}

resource postgres 'Microsoft.DBforPostgreSQL/flexibleServers@2024-08-01' = {
  name: '${name}-dagster'
  location: location
  sku: { name: 'Standard_B2s', tier: 'Burstable' }
  properties: {
    version: '16'
    administratorLogin: 'dagster'
    administratorLoginPassword: postgresPassword
    storage: { storageSizeGB: 32, autoGrow: 'Enabled' }
    backup: { backupRetentionDays: 14, geoRedundantBackup: 'Disabled' }
    network: {
      delegatedSubnetResourceId: network.properties.subnets[1].id
      privateDnsZoneArmResourceId: zone.id
    }
  }
  dependsOn: [zoneOfNetwork]
}

resource database 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2024-08-01' = {
  parent: postgres
  name: 'dagster'
}

// ---- The cluster: Entra ID in front of its API, policies enforced by Cilium, a pool that is there while it trains.

resource clusterNetwork 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: network
  name: guid(network.id, control.id, roles.networkContributor)
  properties: {
    principalId: control.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.networkContributor)
  }
}

resource cluster 'Microsoft.ContainerService/managedClusters@2024-09-01' = {
  name: name
  location: location
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${control.id}': {} } }
  sku: { name: 'Base', tier: 'Standard' }
  properties: {
    dnsPrefix: name
    disableLocalAccounts: true
    aadProfile: { managed: true, enableAzureRBAC: true }
    oidcIssuerProfile: { enabled: true }
    securityProfile: { workloadIdentity: { enabled: true } }
    autoUpgradeProfile: { upgradeChannel: 'patch', nodeOSUpgradeChannel: 'NodeImage' }
    networkProfile: {
      networkPlugin: 'azure'
      networkPluginMode: 'overlay'
      networkDataplane: 'cilium'
      networkPolicy: 'cilium'
    }
    agentPoolProfiles: [
      {
        name: 'system'
        mode: 'System'
        vmSize: 'Standard_D4s_v5'
        osType: 'Linux'
        osSKU: 'AzureLinux'
        count: 2
        enableAutoScaling: true
        minCount: 2
        maxCount: 4
        vnetSubnetID: network.properties.subnets[0].id
      }
      {
        name: 'training'
        mode: 'User'
        vmSize: trainingVmSize
        osType: 'Linux'
        osSKU: 'AzureLinux'
        count: 0
        enableAutoScaling: true
        minCount: 0
        maxCount: 2
        nodeLabels: { '${pool}': 'training' }
        nodeTaints: ['${pool}=training:NoSchedule']
        vnetSubnetID: network.properties.subnets[0].id
      }
    ]
  }
  dependsOn: [clusterNetwork]
}

resource administered 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: cluster
  name: guid(cluster.id, administrators, roles.clusterAdministrator)
  properties: {
    principalId: administrators
    principalType: 'Group'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.clusterAdministrator)
  }
}

// ---- For the ConfigMap `settings`, for kubernetes/before.yaml and for values.yaml.

output settings object = {
  EDGE_AI_AZURE__STORAGE__ENDPOINT: 'https://${lake.name}.blob.${environment().suffixes.storage}'
  EDGE_AI_AZURE__STORAGE__CREDENTIAL__ENTRA: 'default'
  EDGE_AI_AZURE__INGESTION__SUBSCRIPTION: subscription().subscriptionId
  EDGE_AI_AZURE__INGESTION__RESOURCE_GROUP: resourceGroup().name
  EDGE_AI_AZURE__INGESTION__FACTORY: factory.name
  EDGE_AI_AZURE__INGESTION__PIPELINE: land.name
  EDGE_AI_AZURE__TRAINING__SUBSCRIPTION: subscription().subscriptionId
  EDGE_AI_AZURE__TRAINING__RESOURCE_GROUP: resourceGroup().name
  EDGE_AI_AZURE__TRAINING__WORKSPACE: training.name
  EDGE_AI_AZURE__TRAINING__COMPUTE: compute.name
  EDGE_AI_AZURE__REGISTRY__REPOSITORY: '${registry.properties.loginServer}/${repository}'
  EDGE_AI_AZURE__REGISTRY__ENTRA: 'default'
}
output codeIdentity string = code.properties.clientId
output webIdentity string = web.properties.clientId
output postgresHost string = postgres.properties.fullyQualifiedDomainName
output signingKey string = releases.properties.keyUriWithVersion
output sendsPackages string = sends.id
